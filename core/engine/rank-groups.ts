/**
 * All the ranks that hold a parameter, by the groups that its sharding knows.
 *
 * @module
 */
import type { Collective } from "../contracts/collective.ts";
import type { HostArray } from "../contracts/dtype.ts";
import type { AnyModule } from "../nn/module.ts";

/** Groups of ranks. */
export interface RankGroups {
  /** Over which parameters are cut. */
  readonly group: Collective;
  /** Which hold the same parts. */
  readonly replicate?: Collective | undefined;
}

/** The groups of a model's sharded parameters; `undefined` when it has none. */
export function groupsOf(model: AnyModule): RankGroups | undefined {
  return model.parameters().find((parameter) => parameter.manager !== undefined)?.manager;
}

/** Whether this rank is the first of all. */
export function isFirst(groups: RankGroups | undefined): boolean {
  return (groups?.group.rank ?? 0) === 0 && (groups?.replicate?.rank ?? 0) === 0;
}

/** Every rank's `data` becomes the first one's. Collective over all of them. */
export async function broadcastFromFirst(groups: RankGroups | undefined, data: HostArray): Promise<void> {
  // Along the column of the first rank, then along every row.
  if (groups?.group.rank === 0) await groups.replicate?.broadcast(data, 0).wait();
  await groups?.group.broadcast(data, 0).wait();
}

/** The first rank's JSON value, on every rank; what the others give counts nothing. Collective. */
export async function broadcastValue<T>(groups: RankGroups | undefined, value: T): Promise<T> {
  const own = new TextEncoder().encode(JSON.stringify(value));
  const length = Int32Array.of(own.length);
  await broadcastFromFirst(groups, length);
  const bytes = isFirst(groups) ? own : new Uint8Array(length[0]!);
  await broadcastFromFirst(groups, bytes);
  return JSON.parse(new TextDecoder().decode(bytes)) as T;
}

/** Tells the other ranks that this one gives up, lest they wait for it. */
export function abandon(groups: RankGroups | undefined, error: unknown): void {
  const reason = error instanceof Error ? error.message : String(error);
  groups?.replicate?.abort(reason);
  groups?.group.abort(reason);
}

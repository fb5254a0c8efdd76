/**
 * Where an accelerator's checkpoints lie: in folders `checkpoint_N` of a store, whatever takes the location.
 *
 * @module
 */
import process from "node:process";
import type { Checkpointer, CheckpointStore } from "../../../core/contracts/checkpointer.ts";
import { CheckpointError, ConfigError } from "../../../core/contracts/errors.ts";
import { CHECKPOINTER, type Registry, STORE } from "../../../core/contracts/plugin.ts";
import { checkpointNumber, withStepNames } from "./checkpoint-names.ts";

/** One checkpoint. */
export interface CheckpointPlace {
  /** Of the store that holds it. */
  readonly location: string;
  readonly name: string;
}

/** The checkpointer of a location. `named` checkpoints keep the names that they have. @throws ConfigError when no store takes it. */
export function openCheckpoints(
  registry: Registry,
  location: string,
  options: { readonly totalLimit?: number | undefined; readonly named?: boolean } = {},
): Checkpointer {
  const store = openStore(registry, location);
  const { totalLimit, named = false } = options;
  return registry.get(CHECKPOINTER, "native")(named ? store : withStepNames(store), {
    keepLast: totalLimit,
    onRetentionFailure: (error) => {
      const problem = error instanceof Error ? error.message : String(error);
      process.stderr.write(`warning: old checkpoints were not deleted: ${problem}\n`);
    },
  });
}

/** The number of the next checkpoint of a location. */
export async function nextNumber(registry: Registry, location: string): Promise<number> {
  const numbers = (await openStore(registry, location).list()).map((name) => checkpointNumber(name) ?? -1);
  return Math.max(-1, ...numbers) + 1;
}

/**
 * The checkpoint that a location means: the newest in it, or the one whose own folder it is.
 *
 * @throws CheckpointError when there is none.
 */
export async function findCheckpoint(registry: Registry, location: string): Promise<CheckpointPlace> {
  const problems: string[] = [];
  const within = await openCheckpoints(registry, location, { named: true }).list({
    onDamaged: (_, problem) => problems.push(problem),
  });
  const newest = within.at(-1);
  if (newest !== undefined) return { location, name: newest.name };
  const own = /^(.*[^/\\])[/\\]+([^/\\]+)[/\\]*$/.exec(location);
  if (own !== null) {
    const [, parent = "", name = ""] = own;
    const there = await namesIn(registry, parent);
    if (there.includes(name)) return { location: parent, name };
  }
  const why = problems.map((problem) => ` (${problem})`).join("");
  throw new CheckpointError(
    `cannot load state: given "${location}", where there is no complete checkpoint${why}`,
  );
}

/** Of no store are no names. */
async function namesIn(registry: Registry, location: string): Promise<readonly string[]> {
  try {
    return await openStore(registry, location).list();
  } catch (error) {
    if (error instanceof ConfigError) return [];
    throw error;
  }
}

function openStore(registry: Registry, location: string): CheckpointStore {
  for (const name of registry.names(STORE)) {
    const store = registry.get(STORE, name)(location);
    if (store !== undefined) return store;
  }
  throw new ConfigError(
    `cannot use checkpoints at "${location}": no store takes it, there are ${registry.names(STORE).join(", ")}`,
  );
}

/** A checkpoint's own location; a service's may name it already. */
export function showPlace(location: string, name: string): string {
  const place = location.replace(/\/+$/, "");
  return place.endsWith(`/${name}`) ? place : `${place}/${name}`;
}

/**
 * How ranks stay together when one of them fails: each does its part, then all tell each other how it went, and all
 * return or all throw the same error. The exchange is also the barrier between the steps of a save or load.
 *
 * @module
 */
import type { Collective } from "../core/contracts/collective.ts";
import { CheckpointError } from "../core/contracts/errors.ts";

/** Every rank's bytes, in rank order; lengths may differ. Collective. */
export async function allGatherBytes(
  collective: Collective,
  bytes: Uint8Array,
): Promise<readonly Uint8Array[]> {
  const lengths = new Float64Array(collective.size);
  await collective.allGather(lengths, Float64Array.of(bytes.length)).wait();
  const longest = lengths.reduce((a, b) => Math.max(a, b), 0);
  if (longest === 0) return Array.from(lengths, () => new Uint8Array(0));
  const padded = new Uint8Array(longest);
  padded.set(bytes);
  const all = new Uint8Array(longest * collective.size);
  await collective.allGather(all, padded).wait();
  return Array.from(lengths, (length, rank) => all.subarray(rank * longest, rank * longest + length));
}

/** Rank 0's bytes on every rank; what others pass is ignored. Collective. */
export async function broadcastBytes(collective: Collective, bytes: Uint8Array): Promise<Uint8Array> {
  const length = Float64Array.of(bytes.length);
  await collective.broadcast(length, 0).wait();
  const data = new Uint8Array(length[0]!);
  if (collective.rank === 0) data.set(bytes);
  if (data.length > 0) await collective.broadcast(data, 0).wait();
  return data;
}

/**
 * Runs `task` on every rank and waits for all. Collective.
 *
 * @returns this rank's result
 * @throws CheckpointError on every rank, naming each rank that failed and why, when any did.
 */
export async function onEveryRank<T>(
  collective: Collective,
  what: string,
  task: () => Promise<T>,
): Promise<T> {
  const outcome = await settle(task);
  const problem = new TextEncoder().encode(outcome.problem ?? "");
  const problems = await allGatherBytes(collective, problem);
  const lines: string[] = [];
  for (const [rank, bytes] of problems.entries()) {
    if (bytes.length > 0) lines.push(`rank ${rank}: ${new TextDecoder().decode(bytes)}`);
  }
  if ("value" in outcome && lines.length === 0) return outcome.value;
  throw new CheckpointError(`${what}: ${lines.join("; ")}`, {
    cause: "cause" in outcome ? outcome.cause : undefined,
  });
}

/**
 * Runs `task` on rank 0 and gives its text to every rank. Collective.
 *
 * @throws CheckpointError on every rank when it failed.
 */
export async function onFirstRank(
  collective: Collective,
  what: string,
  task: () => Promise<string>,
): Promise<string> {
  const outcome = collective.rank === 0 ? await settle(task) : undefined;
  const sent = outcome === undefined ? "" : "value" in outcome ? `+${outcome.value}` : `-${outcome.problem}`;
  const text = new TextDecoder().decode(await broadcastBytes(collective, new TextEncoder().encode(sent)));
  if (text.startsWith("+")) return text.slice(1);
  const cause = outcome !== undefined && "cause" in outcome ? outcome.cause : undefined;
  throw new CheckpointError(`${what}: ${text.slice(1)}`, { cause });
}

/** Waits until all have ended, so that nothing is under way when a failure is met. @throws the first one's. */
export async function allEnded(tasks: readonly unknown[]): Promise<void> {
  for (const result of await Promise.allSettled(tasks)) if (result.status === "rejected") throw result.reason;
}

type Outcome<T> =
  | { readonly value: T; readonly problem?: undefined }
  | { readonly problem: string; readonly cause: unknown };

async function settle<T>(task: () => Promise<T>): Promise<Outcome<T>> {
  try {
    return { value: await task() };
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    return { problem: message || "it failed", cause };
  }
}

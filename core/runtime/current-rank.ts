/**
 * The rank that the running code belongs to, for code that is not handed it: a script's top level, a library.
 *
 * @module
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { StateError } from "../contracts/errors.ts";
import type { Rank } from "./launch.ts";

/** Tells ranks apart that share an event loop. */
const running = new AsyncLocalStorage<Rank>();
/** The ranks of this thread. The top level of a module runs outside of `running` in some runtimes, but with one rank there is no doubt. */
const here = new Set<Rank>();

/** Whether the caller runs as a rank that `launch` started. */
export function isLaunched(): boolean {
  return find() !== undefined;
}

/**
 * The rank that the caller runs as.
 *
 * @throws StateError outside of what `launch` started.
 */
export function currentRank(): Rank {
  const rank = find();
  if (rank !== undefined) return rank;
  throw new StateError(
    here.size > 1
      ? `there are ${here.size} ranks in this thread, allowed is to ask within the function that each calls: export a function "main"`
      : "there is no rank here: this code was not started by `fsdp launch SCRIPT` or launch()",
  );
}

/** Calls `body` as `rank`. */
export async function asRank<T>(rank: Rank, body: () => Promise<T>): Promise<T> {
  here.add(rank);
  try {
    return await running.run(rank, body);
  } finally {
    here.delete(rank);
  }
}

function find(): Rank | undefined {
  const rank = running.getStore();
  if (rank !== undefined || here.size !== 1) return rank;
  return [...here][0];
}

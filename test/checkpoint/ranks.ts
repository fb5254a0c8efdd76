/**
 * Ranks in one event loop for checkpoint tests.
 *
 * @module
 */
import { localCollectives } from "../../backends/collectives/mod.ts";
import type { Collective } from "../../core/contracts/collective.ts";

/** Runs a function as every rank; rejects with the first rank's error once all have ended. */
export async function runRanks<T>(size: number, run: (collective: Collective) => Promise<T>): Promise<T[]> {
  const settled = await settleRanks(size, run);
  return settled.map((result) => {
    if (result.status === "rejected") throw result.reason;
    return result.value;
  });
}

/** Runs a function as every rank and tells how each ended. */
export function settleRanks<T>(
  size: number,
  run: (collective: Collective) => Promise<T>,
): Promise<PromiseSettledResult<T>[]> {
  return Promise.allSettled(localCollectives(size).map(run));
}

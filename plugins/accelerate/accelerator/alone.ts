/**
 * A script that nobody launched, as a job of one rank: it asks the registered collective for a rank, as `launch` does, and
 * keeps that rank for itself until it ends.
 *
 * @module
 */
import { StateError } from "../../../core/contracts/errors.ts";
import { type Registry, TRANSPORT } from "../../../core/contracts/plugin.ts";
import type { RankContext, RankFunction } from "../../../core/contracts/transport.ts";
import { rankProgram } from "../../../core/runtime/rank-program.ts";

/** Name of the rank program. */
export const ALONE_PROGRAM = "accelerate-alone";

/** A rank that is the whole job. */
export interface LoneRank {
  readonly context: RankContext;
  /** Ends the job. */
  end(): Promise<void>;
}

/** Who waits for a rank, by the number that its program is given. */
const waiting = new Map<number, (context: RankContext) => Promise<void>>();
let numbers = 0;

/** Hands the rank to who asked for it, and lasts until that is done with it. */
export const alone: RankFunction = async (context, args) => {
  const take = waiting.get(Number(args));
  if (take === undefined) {
    throw new StateError(
      "cannot run without a launcher: the registry's module was imported twice, allowed is once",
    );
  }
  await take(context);
};

/** Starts a job of one rank in this event loop. */
export async function becomeLoneRank(registry: Registry): Promise<LoneRank> {
  const number = numbers++;
  const taken = Promise.withResolvers<RankContext>();
  const ended = Promise.withResolvers<void>();
  waiting.set(number, (context) => {
    taken.resolve(context);
    return ended.promise;
  });
  try {
    const job = registry
      .get(TRANSPORT, "single")
      .launch(rankProgram(registry, ALONE_PROGRAM, number), { worldSize: 1 });
    const failed = job.results.then(() => taken.promise);
    const context = await Promise.race([taken.promise, failed]);
    return {
      context,
      end: async () => {
        ended.resolve();
        await job.results;
      },
    };
  } finally {
    waiting.delete(number);
  }
}

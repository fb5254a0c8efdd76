/**
 * Runs all ranks of a job in this event loop. What they are given and return is cloned, as it would be between threads.
 *
 * @module
 */
import type { Collective } from "../../core/contracts/collective.ts";
import { AbortError, CollectiveError } from "../../core/contracts/errors.ts";
import type { LaunchOptions, RankFunction, RankJob, RankProgram } from "../../core/contracts/transport.ts";
import { loadProgram } from "./program.ts";
import { fromRemoteError, toRemoteError } from "./remote-error.ts";

/** The ranks' collectives, and the way to make all of their calls reject. */
export interface InProcessWorld {
  /** In rank order. */
  readonly collectives: readonly Collective[];
  fail(error: Error): void;
}

/** How long ranks may take to notice that one of them failed before the job rejects without them, in milliseconds. */
const GRACE = 1000;

/** Starts `program` once per collective. Ranks of a killed job cannot be stopped by force: their collective calls reject. */
export function runInProcess(program: RankProgram, options: LaunchOptions, world: InProcessWorld): RankJob {
  const { worldSize, onMessage } = options;
  const failed = Promise.withResolvers<never>();
  let stop = false;
  let failure: Error | undefined;
  let settled = false;

  const fail = (error: Error, reason: Error): void => {
    if (failure || settled) return;
    failure = error;
    world.fail(reason);
    const timer = setTimeout(() => failed.reject(error), GRACE);
    void Promise.all(ranks).then(() => {
      clearTimeout(timer);
      failed.reject(error);
    });
  };

  const runRank = async (rank: number, program: Promise<RankFunction>, args: unknown): Promise<unknown> => {
    const collective = world.collectives[rank]!;
    try {
      const run = await program;
      const context = {
        rank,
        worldSize,
        collective,
        localWorldSize: worldSize,
        stopRequested: () => stop,
        report: (message: unknown) => onMessage?.(rank, structuredClone(message)),
      };
      const result = structuredClone(await run(context, structuredClone(args)));
      await collective.close();
      return result;
    } catch (thrown) {
      const remote = toRemoteError(thrown);
      fail(
        fromRemoteError(rank, remote),
        new CollectiveError(`rank ${rank} failed: ${remote.message}`, rank, { cause: thrown }),
      );
      return undefined;
    }
  };

  const loaded = loadProgram(program);
  const ranks = world.collectives.map((_, rank) => runRank(rank, loaded, program.args));
  const finished = Promise.all(ranks).then((results) => {
    settled = failure === undefined;
    return settled ? results : failed.promise;
  });
  const results = Promise.race([finished, failed.promise]);
  results.catch(() => {});
  return {
    results,
    requestStop: () => {
      stop = true;
    },
    kill: async () => {
      const error = new AbortError("run was killed");
      fail(error, error);
      await results.catch(() => {});
    },
  };
}

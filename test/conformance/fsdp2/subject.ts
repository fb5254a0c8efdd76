/**
 * What the suite is run on: a way to run ranks, a device for each of them, and how much of the suite.
 *
 * @module
 */
import type { Transport } from "../../../core/contracts/transport.ts";
import type { Delay } from "./delayed.ts";
import type { BackendSource, ProgramCall, ProgramCalls, RankProgramOf } from "./rank.ts";

/** Options of the suite. */
export interface SubjectOptions {
  readonly backend: BackendSource;
  /** World sizes. Default 1, 2, 3 and 4. */
  readonly worlds?: readonly number[];
  /** Larger worlds, for few tests. Default none. */
  readonly largeWorlds?: readonly number[];
  /** A very large world, for one test. Default none. */
  readonly hugeWorld?: number | undefined;
  /** Whether a sharded run has the bits of a replicated one: its reductions are computed by the same code. Default false. */
  readonly exact?: boolean;
  /** Whether everything is tried, or the most telling only. Default true. */
  readonly thorough?: boolean;
  /** 16-bit types that the device computes in. Default none. */
  readonly precisions?: readonly ("bfloat16" | "float16")[];
  /** Milliseconds a test may take. Default 60,000. */
  readonly timeout?: number;
}

/** What the topics' tests are given. */
export interface Subject extends Required<Omit<SubjectOptions, "backend" | "hugeWorld">> {
  readonly hugeWorld: number | undefined;
  /** The worlds of more than one rank. */
  readonly several: readonly number[];
  /** Whether collectives see the devices' memory. */
  readonly hostVisible: boolean;
  /**
   * Runs a program on every rank, and returns what they found, in rank order. Programs that are asked for at the same time
   * run one after the other in one job, as threads take longer to start than most programs to run.
   */
  run<A, R>(
    worldSize: number,
    program: RankProgramOf<A, R>,
    args: A,
    delay?: Delay,
  ): Promise<readonly Awaited<R>[]>;
}

const MODULE = new URL("./run-programs.ts", import.meta.url).href;

/** The subject of a transport and a backend. */
export function subjectOf(transport: Transport, options: SubjectOptions): Subject {
  const { backend, worlds = [1, 2, 3, 4] } = options;
  const waiting = new Map<number, { call: ProgramCall; job: PromiseWithResolvers<readonly unknown[]> }[]>();
  const launch = async (worldSize: number): Promise<void> => {
    const asked = waiting.get(worldSize)!;
    waiting.delete(worldSize);
    const args: ProgramCalls = { backend, calls: asked.map(({ call }) => call) };
    try {
      const launched = transport.launch({ module: MODULE, export: "runPrograms", args }, { worldSize });
      const ranks = (await launched.results) as readonly (readonly unknown[])[];
      for (const [i, { job }] of asked.entries()) job.resolve(ranks.map((found) => found[i]));
    } catch (error) {
      for (const { job } of asked) job.reject(error);
    }
  };
  return {
    worlds,
    several: worlds.filter((size) => size > 1),
    largeWorlds: options.largeWorlds ?? [],
    hugeWorld: options.hugeWorld,
    exact: options.exact ?? false,
    thorough: options.thorough ?? true,
    precisions: options.precisions ?? [],
    timeout: options.timeout ?? 60_000,
    hostVisible: backend.export === "cpuBackend" && backend.far !== true,
    run<A, R>(worldSize: number, program: RankProgramOf<A, R>, args: A, delay?: Delay) {
      const job = Promise.withResolvers<readonly unknown[]>();
      const call: ProgramCall = { program: program.name, args, delay };
      const asked = waiting.get(worldSize);
      asked?.push({ call, job });
      if (asked === undefined) {
        waiting.set(worldSize, [{ call, job }]);
        queueMicrotask(() => void launch(worldSize));
      }
      return job.promise as Promise<readonly Awaited<R>[]>;
    },
  };
}

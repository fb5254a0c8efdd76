/**
 * The suite that every transport must pass: the law of `core/contracts/collective.ts` against plain oracles.
 *
 * @module
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ConfigError } from "../../../core/contracts/errors.ts";
import type { Transport } from "../../../core/contracts/transport.ts";
import { SUITE_DTYPES, SUITE_OPS } from "./oracle.ts";
import type { Outcome } from "./outcome.ts";
import type { SequenceReport } from "./programs.ts";
import type { OperationSpec } from "./random-operation.ts";
import { shareConformance } from "./share-suite.ts";

/** What differs between transports. */
export interface ConformanceOptions {
  /** World sizes to test. */
  readonly worlds: readonly number[];
  /** How many random sequences per world. */
  readonly sequences: number;
  /** For a test, in milliseconds. */
  readonly timeout: number;
}

const PROGRAMS: string = new URL("./programs.ts", import.meta.url).href;

/** Elements of which all ranks together have more than 2^14, if they are few. */
function large(world: number): number {
  return world > 8 ? 40 : Math.ceil(17011 / world);
}

function operationFor(world: number): fc.Arbitrary<OperationSpec> {
  return fc.record({
    name: fc.constantFrom("allGather", "reduceScatter", "allReduce", "broadcast", "share", "barrier"),
    dtype: fc.constantFrom(...SUITE_DTYPES),
    op: fc.constantFrom(...SUITE_OPS),
    length: fc.oneof(
      { weight: 9, arbitrary: fc.nat(40) },
      { weight: 1, arbitrary: fc.constant(large(world)) },
    ),
    root: fc.nat(7),
    seed: fc.nat(1000),
    inPlace: fc.boolean(),
  });
}

/** Registers the suite's tests for a transport. */
export function collectiveConformance(transport: Transport, options: ConformanceOptions): void {
  const { timeout } = options;
  shareConformance(transport, options.worlds, timeout);
  const run = async <T>(worldSize: number, program: string, args: unknown = {}): Promise<readonly T[]> => {
    const job = transport.launch({ module: PROGRAMS, export: program, args }, { worldSize });
    return (await job.results) as readonly T[];
  };

  describe.each(options.worlds.map((world) => [world] as const))(`${transport.name}, %i ranks`, (world) => {
    test(
      "every operation gives the oracle's bits for every dtype, the same on all ranks and runs",
      async () => {
        const args =
          world > 8
            ? { dtypes: ["bfloat16"], ops: ["avg"], lengths: [3] }
            : { dtypes: SUITE_DTYPES, ops: SUITE_OPS, lengths: [0, 1, 7] };
        const first = await run<SequenceReport>(world, "everyOperation", args);
        expect(first.flatMap((report) => report.problems)).toEqual([]);
        expect(new Set(first.map((report) => report.common)).size).toBe(1);
        expect(await run<SequenceReport>(world, "everyOperation", args)).toEqual(first);
      },
      timeout,
    );

    test(
      "large reductions give the oracle's bits too, whatever path they take",
      async () => {
        const args = {
          dtypes: world > 4 ? ["bfloat16"] : ["float32", "bfloat16"],
          ops: ["avg"],
          lengths: [large(world)],
        };
        const reports = await run<SequenceReport>(world, "everyOperation", args);
        expect(reports.flatMap((report) => report.problems)).toEqual([]);
      },
      timeout,
    );

    test(
      "any sequence of operations, several outstanding and ranks delayed at random, gives the oracle's bits",
      async () => {
        const sequence = fc.array(operationFor(world), { minLength: 1, maxLength: 24 });
        const property = fc.asyncProperty(
          sequence,
          fc.integer({ min: 1, max: 6 }),
          fc.nat(),
          async (specs, ahead, seed) => {
            const reports = await run<SequenceReport>(world, "randomSequence", { specs, ahead, seed });
            expect(reports.flatMap((report) => report.problems)).toEqual([]);
            expect(new Set(reports.map((report) => report.common)).size).toBe(1);
          },
        );
        // On failure fast-check prints the seed and path that repeat it.
        await fc.assert(property, { numRuns: world > 8 ? 1 : options.sequences, endOnFailure: true });
      },
      timeout,
    );

    test(
      "more operations may be outstanding than are under way",
      async () => {
        expect(await run<number>(world, "manyOutstanding", { count: 100 })).toEqual(new Array(world).fill(0));
      },
      timeout,
    );

    test(
      "subgroups have the ranks of their color in the order of their keys",
      async () => {
        const found = await run<Record<string, unknown>>(world, "subgroups");
        const ranks = Array.from({ length: world }, (_, rank) => rank);
        const colorOf = (rank: number): number => Math.floor((Math.sqrt(8 * rank + 1) - 1) / 2);
        for (const rank of ranks) {
          const column = ranks.filter((other) => other % 2 === rank % 2);
          const parity = column.indexOf(rank) % 2;
          const expected = {
            uneven: ranks.filter((other) => colorOf(other) === colorOf(rank)).reverse(),
            row: ranks.filter((other) => Math.floor(other / 2) === Math.floor(rank / 2)),
            column,
            nested: column.filter((_, index) => index % 2 === parity),
          };
          for (const [name, members] of Object.entries(expected)) {
            expect(found[rank]![name]).toEqual(Int32Array.from(members));
            expect(found[rank]!.ranks).toHaveProperty(name, members.indexOf(rank));
          }
        }
      },
      timeout,
    );

    test(
      "a split need not be awaited before the next call",
      async () => {
        const found = await run<readonly number[]>(world, "splitsUnderWay");
        const sizes = [Math.ceil(world / 2), Math.floor(world / 2)];
        found.forEach((ranks, rank) => {
          expect(ranks).toEqual([world, sizes[rank % 2]!, Math.floor(rank / 2), world - 1 - rank]);
        });
      },
      timeout,
    );

    if (world % 2 === 0) {
      test(
        "a mesh of two columns reduces over rows, then columns, to the sum of all",
        async () => {
          const sum = (world * (world + 1)) / 2;
          expect(await run<number>(world, "meshReduction")).toEqual(new Array(world).fill(sum));
        },
        timeout,
      );
    }

    test(
      "no call may follow close",
      async () => {
        for (const { name } of await run<Outcome>(world, "callAfterClose")) expect(name).toBe("StateError");
      },
      timeout,
    );
  });

  const world = options.worlds.find((size) => size > 2) ?? 1;
  describe(`${transport.name}, as a job of ${world} ranks`, () => {
    test(
      "ranks are given their place and the arguments, and are heard; results come in rank order",
      async () => {
        const heard: unknown[] = [];
        const args = { steps: 3, names: ["a", "b"] };
        const job = transport.launch(
          { module: PROGRAMS, export: "introduce", args },
          { worldSize: world, onMessage: (rank, message) => heard.push({ rank, message }) },
        );
        const ranks = Array.from({ length: world }, (_, rank) => rank);
        expect(await job.results).toEqual(
          ranks.map((rank) => ({
            rank,
            worldSize: world,
            localWorldSize: world,
            args,
            collective: [rank, world],
          })),
        );
        expect(heard).toHaveLength(world);
        for (const rank of ranks) expect(heard).toContainEqual({ rank, message: { from: rank } });
      },
      timeout,
    );

    test(
      "a requested stop reaches all ranks, which agree on when to end",
      async () => {
        const job = transport.launch(
          { module: PROGRAMS, export: "runUntilStopped", args: {} },
          { worldSize: world, onMessage: (_, step) => step === 3 && job.requestStop() },
        );
        const steps = (await job.results) as readonly number[];
        expect(steps[0]).toBeGreaterThanOrEqual(3);
        expect(new Set(steps).size).toBe(1);
      },
      timeout,
    );

    test(
      "a killed job rejects with AbortError, and may be killed again",
      async () => {
        const started = Promise.withResolvers<void>();
        const job = transport.launch(
          { module: PROGRAMS, export: "waitForEver", args: {} },
          { worldSize: world, onMessage: () => started.resolve() },
        );
        await started.promise;
        await job.kill();
        await expect(job.results).rejects.toMatchObject({ name: "AbortError", message: "run was killed" });
        await job.kill();
      },
      timeout,
    );

    test(
      "killing a finished job changes nothing",
      async () => {
        const job = transport.launch(
          { module: PROGRAMS, export: "introduce", args: 1 },
          { worldSize: world },
        );
        const results = await job.results;
        await job.kill();
        expect(await job.results).toBe(results);
      },
      timeout,
    );

    test.each([
      ["builtin", { name: "RangeError", message: `rank ${world - 1}: index 7 is outside` }],
      ["own class", { name: "LossError", code: "rank", message: `rank ${world - 1}: loss is NaN` }],
      ["string", { name: "Error", message: `rank ${world - 1}: just text` }],
    ] as const)(
      "a foreign error (%s) keeps its name and message",
      async (how, expected) => {
        const job = transport.launch(
          { module: PROGRAMS, export: "foreignError", args: { how } },
          { worldSize: world },
        );
        await expect(job.results).rejects.toMatchObject(expected);
      },
      timeout,
    );

    test(
      "a program that is not there is a ConfigError",
      async () => {
        await expect(run(world, "noSuchProgram")).rejects.toMatchObject({
          name: "ConfigError",
          message: expect.stringContaining("export noSuchProgram is undefined, not a function"),
        });
      },
      timeout,
    );

    test("a world size that is no positive integer is refused at once", () => {
      for (const worldSize of [0, -1, 1.5, Number.NaN]) {
        const launch = (): unknown =>
          transport.launch({ module: PROGRAMS, export: "introduce", args: 1 }, { worldSize });
        expect(launch).toThrow(ConfigError);
      }
    });
  });

  if (world === 1) return;
  describe(`${transport.name}, when things go wrong`, () => {
    test.each(["operation", "length", "dtype", "op", "root", "share"] as const)(
      "ranks that differ in %s all reject, then and later, with who called what",
      async (how) => {
        const outcomes = (await run<readonly Outcome[]>(world, "mismatch", { how })).flat();
        expect(outcomes).toHaveLength(2 * world);
        for (const { name, message } of outcomes) {
          expect(name).toBe("CollectiveError");
          expect(message).toMatch(new RegExp(`ranks 0-${world - 2} called .*, rank ${world - 1} called `));
        }
      },
      timeout,
    );

    test(
      "an abort rejects pending and later calls of its group on every rank, and of no other",
      async () => {
        for (const outcome of (await run<readonly Outcome[]>(world, "abort")).flat()) {
          expect(outcome.name).toBe("CollectiveError");
          expect(outcome.message).toContain(`aborted by rank ${world - 1}: enough`);
        }
      },
      timeout,
    );

    test(
      "a rank that returns early makes the others' calls reject with its name",
      async () => {
        const outcomes = (await run<readonly Outcome[]>(world, "earlyReturn")).flat();
        expect(outcomes).toHaveLength(2 * (world - 1));
        for (const { name, message, rank } of outcomes) {
          expect([name, rank]).toEqual(["CollectiveError", 1]);
          expect(message).toContain("rank 1 left");
        }
      },
      timeout,
    );

    test(
      "wrong arguments throw at the call, and reject on the other ranks",
      async () => {
        const outcomes = await run<Outcome>(world, "wrongArguments");
        outcomes.forEach(({ name, message }, rank) => {
          expect(name).toBe(rank === 1 ? "ShapeError" : "CollectiveError");
          expect(message).toContain(`allGather over ${world} ranks: output has 1 float32 elements`);
        });
      },
      timeout,
    );

    test(
      "a failing rank rejects all calls of the others, and the job with its error",
      async () => {
        const seen: { readonly seen: Outcome; readonly later: Outcome }[] = [];
        const job = transport.launch(
          { module: PROGRAMS, export: "failingRank", args: { computes: false } },
          { worldSize: world, onMessage: (_, message) => seen.push(message as (typeof seen)[number]) },
        );
        await expect(job.results).rejects.toMatchObject({
          name: "ShapeError",
          code: "shape",
          message: "rank 1: weights do not fit: 3 given, 4 needed",
        });
        expect(seen).toHaveLength(world - 1);
        for (const { name, message, rank } of seen.flatMap((pair) => [pair.seen, pair.later])) {
          expect([name, rank]).toEqual(["CollectiveError", 1]);
          expect(message).toContain("rank 1 failed: weights do not fit");
        }
      },
      timeout,
    );
  });
}

/** Gradients over microbatches: one sum, PyTorch's numbers of collectives (TestFullyShardGradientAccumulation). */
import { describe, expect, test } from "bun:test";
import { expectClose } from "./compare.ts";
import { type AccumulationSpec, accumulate } from "./programs/accumulation.ts";
import type { Subject } from "./subject.ts";

/** Blocks, the microbatches, and the groups: the blocks' and the root's. */
const LAYERS = 3;
const M = 3;
const GROUPS = LAYERS + 1;

interface Mode {
  readonly spec: Omit<AccumulationSpec, "layers" | "microbatches">;
  readonly gathers: number;
  readonly reductions: number;
}

/** PyTorch's counts, of m blocks and the root, with d of them deferred. */
const MODES: readonly Mode[] = [
  {
    spec: { sharding: { reshardAfterForward: true } },
    gathers: 2 * GROUPS * M,
    reductions: GROUPS * M,
  },
  {
    spec: { sharding: { reshardAfterForward: true }, deferred: "all" },
    gathers: 2 * GROUPS * M,
    reductions: GROUPS,
  },
  {
    spec: { sharding: { reshardAfterForward: true }, deferred: "some" },
    gathers: 2 * GROUPS * M,
    reductions: GROUPS + (GROUPS - 1) * (M - 1),
  },
  {
    spec: { sharding: { reshardAfterForward: true }, deferred: "root" },
    gathers: 2 * GROUPS * M,
    reductions: GROUPS + LAYERS * (M - 1),
  },
  {
    spec: { sharding: { reshardAfterForward: false }, deferred: "all" },
    gathers: GROUPS * M,
    reductions: GROUPS,
  },
  {
    spec: { sharding: { reshardAfterForward: false }, deferred: "all", reshardAfterBackward: false },
    gathers: GROUPS,
    reductions: GROUPS,
  },
  {
    spec: { sharding: { reshardAfterForward: false }, deferred: "root", reshardAfterBackward: false },
    gathers: GROUPS + LAYERS * (M - 1),
    reductions: GROUPS + LAYERS * (M - 1),
  },
  {
    spec: { sharding: { reshardAfterForward: false }, deferred: "all", pipelined: true },
    gathers: GROUPS,
    reductions: GROUPS,
  },
];

/** Registers the tests. */
export function accumulation(subject: Subject): void {
  const { worlds, thorough, timeout } = subject;
  const run = (worldSize: number, spec: Mode["spec"]) =>
    subject.run(worldSize, accumulate, { layers: LAYERS, microbatches: M, ...spec });

  describe("gradients of several microbatches", () => {
    for (const worldSize of worlds) {
      test(
        `are the mean of the ranks' sums, with no collective too many, on ${worldSize} ranks`,
        async () => {
          const reference = run(worldSize, {});
          const check = async ({ spec, gathers, reductions }: Mode): Promise<void> => {
            const [[replica], results] = await Promise.all([reference, run(worldSize, spec)]);
            for (const { gradients, counts } of results) {
              const expected = worldSize === 1 ? [0, 0, 0] : [gathers, reductions, 0];
              expect([spec, counts.allGather, counts.reduceScatter, counts.allReduce]).toEqual([
                spec,
                ...expected,
              ]);
              for (const [i, gradient] of gradients.entries()) {
                expectClose(gradient, replica!.gradients[i]!, JSON.stringify(spec));
              }
            }
          };
          await Promise.all((thorough ? MODES : MODES.slice(3, 4)).map(check));
        },
        timeout,
      );
    }

    for (const mesh of [
      [2, 1],
      [2, 2],
    ].filter(([r, s]) => worlds.includes(r! * s!))) {
      test(
        `on a mesh of ${mesh.join(" x ")} are reduced over both dims as often, or over replicas at last`,
        async () => {
          const [replicas, shards] = mesh as [number, number];
          const sharding = { mesh, reshardAfterForward: true };
          const cases = [
            { spec: { sharding, deferred: "all" }, scattered: GROUPS, reduced: GROUPS },
            {
              spec: { sharding, deferred: "root" },
              scattered: GROUPS + LAYERS * (M - 1),
              reduced: GROUPS + LAYERS * (M - 1),
            },
            { spec: { sharding, partial: true }, scattered: GROUPS * M, reduced: GROUPS },
          ] as const;
          const reference = run(replicas * shards, {});
          const check = async ({ spec, scattered, reduced }: (typeof cases)[number]): Promise<void> => {
            const [[replica], results] = await Promise.all([reference, run(replicas * shards, spec)]);
            for (const { gradients, counts } of results) {
              expect([spec, counts.reduceScatter, counts.allReduce]).toEqual([
                spec,
                shards === 1 ? 0 : scattered,
                reduced,
              ]);
              for (const [i, gradient] of gradients.entries()) {
                expectClose(gradient, replica!.gradients[i]!, JSON.stringify(spec));
              }
            }
          };
          await Promise.all((thorough ? cases : cases.slice(2)).map(check));
        },
        timeout,
      );
    }
  });
}

/** What reductions take and how they divide (TestFullyShardFrozen, ForceSumReduction, set_reduce_scatter_divide_factor). */
import { describe, expect, test } from "bun:test";
import { expectClose } from "./compare.ts";
import { divided } from "./programs/accumulation.ts";
import { type EventsSpec, events } from "./programs/events.ts";
import type { ShardSpec } from "./programs/models.ts";
import type { Subject } from "./subject.ts";

/** Shapes of a stack's parameters: of a block, and of the layers around them. */
const BLOCK = {
  weights: [
    [7, 6],
    [6, 7],
  ],
  biases: [[7], [6]],
};
const ROOT = {
  weights: [
    [6, 5],
    [1, 6],
  ],
  biases: [[6], [1]],
};

/** Elements that `worldSize` ranks send of parameters, padded to equal chunks of their first dims. */
function sent(shapes: readonly (readonly number[])[], worldSize: number): number {
  const chunks = shapes.map(([rows, ...rest]) => rest.reduce((n, e) => n * e, Math.ceil(rows! / worldSize)));
  return worldSize * chunks.reduce((a, b) => a + b, 0);
}

/** Registers the tests. */
export function reductions(subject: Subject): void {
  const { worlds, several, timeout } = subject;
  const seen = async (worldSize: number, spec: Omit<EventsSpec, "layers">) => {
    const [first] = await subject.run(worldSize, events, { layers: 2, ...spec });
    const { words, collectives } = first![0]![1];
    const of = (kind: string) => collectives.filter((event) => event.kind === kind);
    return { words, scatters: of("reduceScatter"), reduces: of("allReduce") };
  };

  describe("a reduction", () => {
    for (const worldSize of several) {
      test(
        `takes the elements of what learns, and of a frozen group there is none, on ${worldSize} ranks`,
        async () => {
          const [all, biases, blocks] = await Promise.all([
            seen(worldSize, { sharding: {} }),
            seen(worldSize, { sharding: {}, frozen: "bias$" }),
            seen(worldSize, { sharding: {}, frozen: "^blocks.1|^inner" }),
          ]);
          const whole = sent([...BLOCK.weights, ...BLOCK.biases], worldSize);
          const root = sent([...ROOT.weights, ...ROOT.biases], worldSize);
          expect(all.scatters.map(({ numel }) => numel)).toEqual([whole, whole, root]);
          const weights = sent(BLOCK.weights, worldSize);
          expect(biases.scatters.map(({ numel }) => numel)).toEqual([
            weights,
            weights,
            sent(ROOT.weights, worldSize),
          ]);
          const outer = sent([ROOT.weights[1]!, ROOT.biases[1]!], worldSize);
          // Whose gradients are all there is reduced first: the root's, as nothing before the blocks learns.
          expect(blocks.scatters.map(({ numel, unit }) => [unit, numel])).toEqual([
            ["", outer],
            ["blocks.0", whole],
          ]);
        },
        timeout,
      );
    }

    for (const [replicas, shards] of [
      [1, 2],
      [2, 1],
      [2, 2],
    ] as const) {
      const worldSize = replicas * shards;
      if (!worlds.includes(worldSize)) continue;
      const sharding: ShardSpec = replicas === 1 ? {} : { mesh: [replicas, shards] };
      test(
        `averages, or sums where it is asked to, and divides by what the root was told in it alone, on ${replicas} x ${shards} ranks`,
        async () => {
          const factor = 2 * worldSize;
          const [usual, forced, byRanks] = await Promise.all([
            seen(worldSize, { sharding }),
            seen(worldSize, { sharding, forceSum: true }),
            seen(worldSize, { sharding, divideFactor: factor }),
          ]);
          const ops = ({ scatters, reduces }: typeof usual) =>
            new Set([...scatters, ...reduces].map(({ op }) => op));
          expect(ops(usual)).toEqual(new Set(["avg"]));
          expect(ops(forced)).toEqual(new Set(["sum"]));
          const root = [...byRanks.scatters, ...byRanks.reduces].filter(({ unit }) => unit === "");
          expect(root.map(({ op }) => op)).toEqual(root.map(() => "sum"));

          const of = (more: Partial<Parameters<typeof divided>[1]>) =>
            subject.run(worldSize, divided, { sharding, ...more });
          const [mean, sums, half] = await Promise.all([
            of({}),
            of({ forceSum: true }),
            of({ divideFactor: factor }),
          ]);
          for (const [r, { root: own, blocks }] of mean.entries()) {
            expectClose(sums[r]!.blocks, blocks, "forced sums, blocks", 1e-6);
            expectClose(sums[r]!.root, own, "forced sums, root", 1e-6);
            expectClose(half[r]!.blocks, blocks, "divided, blocks", 1e-6);
            expectClose(
              half[r]!.root,
              own.map((value) => value / 2),
              "divided, root",
              1e-6,
            );
          }
        },
        timeout,
      );
    }

    if (worlds.includes(1)) {
      test(
        "on one rank alone divides by a factor only",
        async () => {
          const of = (divideFactor?: number) =>
            subject.run(1, divided, { sharding: {}, ...(divideFactor !== undefined && { divideFactor }) });
          const [[plain], [one], [two]] = await Promise.all([of(), of(1), of(2)]);
          expect(one).toEqual(plain!);
          expect(two!.root).toEqual(plain!.root.map((value) => value / 2));
          expect(two!.blocks).toEqual(plain!.blocks);
        },
        timeout,
      );
    }
  });
}

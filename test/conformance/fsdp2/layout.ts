/**
 * How parameters lie in what travels (TestFullyShardCollectiveOps): one gather and one reduction a group, in which each
 * parameter is cut on its first dim into as many equal chunks as there are ranks, the last ones padded with zeros.
 */
import { describe, expect, test } from "bun:test";
import { expectClose } from "./compare.ts";
import { gradientOf, layout } from "./programs/layout.ts";
import type { Subject } from "./subject.ts";

type Shapes = readonly (readonly number[])[];

const numelOf = (shape: readonly number[]): number => shape.reduce((n, extent) => n * extent, 1);

/** Numbers of each parameter's elements, counted from 1 over all. */
function numbered(shapes: Shapes): readonly (readonly number[])[] {
  let next = 1;
  return shapes.map((shape) => Array.from({ length: numelOf(shape) }, () => next++));
}

/** A rank's rows of a parameter's elements, without padding. */
function rowsOf<T>(
  elements: readonly T[],
  shape: readonly number[],
  worldSize: number,
  rank: number,
): readonly T[] {
  const chunk = Math.ceil(shape[0]! / worldSize);
  const row = numelOf(shape.slice(1));
  return elements.slice(rank * chunk * row, (rank + 1) * chunk * row);
}

/** What a gather carries: for each rank its chunk of every parameter, each padded to equal length. */
function gathering(elements: readonly (readonly number[])[], shapes: Shapes, worldSize: number): number[] {
  return Array.from({ length: worldSize }, (_, rank) =>
    shapes.map((shape, p) =>
      padded(rowsOf(elements[p]!, shape, worldSize, rank), numelOf(chunkOf(shape, worldSize))),
    ),
  ).flat(2);
}

/** What a reduction carries: as many elements, but a rank's chunks adjoin, and what pads them comes last. */
function reducing(elements: readonly (readonly number[])[], shapes: Shapes, worldSize: number): number[] {
  const length = shapes.reduce((sum, shape) => sum + numelOf(chunkOf(shape, worldSize)), 0);
  return Array.from({ length: worldSize }, (_, rank) =>
    padded(
      shapes.flatMap((shape, p) => rowsOf(elements[p]!, shape, worldSize, rank)),
      length,
    ),
  ).flat();
}

function chunkOf(shape: readonly number[], worldSize: number): readonly number[] {
  return shape.with(0, Math.ceil(shape[0]! / worldSize));
}

function padded(values: readonly number[], length: number): readonly number[] {
  return [...values, ...new Array<number>(length - values.length).fill(0)];
}

/** PyTorch's worked example, and extents below, at and above the ranks. */
const CASES: readonly Shapes[] = [
  [[5, 2], [3]],
  [[1], [2, 3], [3, 2, 2], [4], [9, 1], [17]],
];

/** Registers the tests. */
export function layouts(subject: Subject): void {
  const { worlds, largeWorlds, hugeWorld, hostVisible, precisions, timeout } = subject;

  describe("a group's parameters", () => {
    if (worlds.includes(2) && hostVisible) {
      test(
        "of shapes 5 x 2 and 3 travel between two ranks as in PyTorch's example",
        async () => {
          for (const { gathered } of await subject.run(2, layout, { shapes: CASES[0]! })) {
            expect(gathered).toEqual([1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 0, 0, 13, 0]);
          }
        },
        timeout,
      );
    }

    for (const worldSize of [...worlds, ...largeWorlds, ...(hugeWorld === undefined ? [] : [hugeWorld])]) {
      test(
        `are cut into equal chunks, padded with zeros, gathered and reduced so, on ${worldSize} ranks`,
        async () => {
          const check = async (shapes: Shapes): Promise<void> => {
            const values = numbered(shapes);
            const results = await subject.run(worldSize, layout, { shapes });
            const mean = values.map((numbers) =>
              numbers.map((number) => {
                const sum = results.reduce((total, _, rank) => total + gradientOf(rank, number), 0);
                return sum / worldSize;
              }),
            );
            for (const [rank, found] of results.entries()) {
              expect(found.values).toEqual(values);
              expect(found.owned).toEqual(
                shapes.map((shape, p) => {
                  const rows = rowsOf(values[p]!, shape, worldSize, rank);
                  return { shape: [rows.length / numelOf(shape.slice(1)), ...shape.slice(1)], values: rows };
                }),
              );
              for (const [p, gradient] of found.gradients.entries()) {
                expectClose(gradient, mean[p]!, `gradient of parameter ${p}`, 1e-6);
              }
              if (worldSize === 1 || !hostVisible) continue;
              expect(found.gathered).toEqual(gathering(values, shapes, worldSize));
              const own = values.map((numbers) => numbers.map((number) => gradientOf(rank, number)));
              expect(found.scattered).toEqual(reducing(own, shapes, worldSize));
            }
          };
          await Promise.all(CASES.map(check));
        },
        timeout,
      );

      for (const reduceDtype of worldSize === hugeWorld ? [] : precisions) {
        test(
          `are reduced in ${reduceDtype} to the mean within its rounding on ${worldSize} ranks`,
          async () => {
            const shapes = CASES[0]!;
            const results = await subject.run(worldSize, layout, { shapes, reduceDtype });
            const rounding = reduceDtype === "float16" ? 2 ** -10 : 2 ** -7;
            for (const { gradients } of results) {
              for (const [p, numbers] of numbered(shapes).entries()) {
                const mean = numbers.map(
                  (number) =>
                    results.reduce((total, _, rank) => total + gradientOf(rank, number), 0) / worldSize,
                );
                expectClose(gradients[p]!, mean, `gradient of parameter ${p}`, rounding);
              }
            }
          },
          timeout,
        );
      }
    }
  });
}

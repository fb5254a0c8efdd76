import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { DType } from "../../../core/contracts/dtype.ts";
import { ConfigError, ShapeError } from "../../../core/contracts/errors.ts";
import type { ParameterSpec } from "../../../core/contracts/shard.ts";
import { planMoves } from "../../../core/engine/moves.ts";
import { forEachRun } from "../../../core/nn/init.ts";
import { numelOf } from "../../../core/tensor/shape.ts";
import { alignmentOf, flatLayout, rangesIn } from "../../../plugins/fsdp1/flat-layout.ts";
import { flatShard, rangeBoxes, shardFlat } from "../../../plugins/fsdp1/flat-shard.ts";

const specs = (shapes: readonly (readonly number[])[], dtype: DType = "float32"): ParameterSpec[] =>
  shapes.map((shape, i) => ({ name: `p${i}`, shape, dtype }));

/** What each rank holds: `[parameter, begin, end)`, and the padded length of all shards. */
function cut(numels: readonly number[], alignment: number, worldSize: number) {
  const parameters = specs(numels.map((n) => [n]));
  const layout = flatLayout(parameters, alignment);
  const { shardNumel } = shardFlat(layout, worldSize);
  const ranks = Array.from({ length: worldSize }, (_, rank) =>
    rangesIn(layout, rank * shardNumel, Math.min((rank + 1) * shardNumel, layout.numel)).map(
      ({ parameter, begin, end }) => [parameter, begin, end],
    ),
  );
  return { numel: layout.numel, shardNumel, ranks };
}

describe("the flat layout is PyTorch's", () => {
  test("for three matrices of 100 elements, whatever range is asked for", () => {
    const layout = flatLayout(
      specs([
        [10, 10],
        [10, 10],
        [10, 10],
      ]),
      1,
    );
    // PyTorch's test_flat_param_shard_metadata_unaligned, its inclusive ends made exclusive.
    const vectors: readonly [number, number, number[][]][] = [
      [0, 51, [[0, 0, 51]]],
      [
        50,
        150,
        [
          [0, 50, 100],
          [1, 0, 50],
        ],
      ],
      [
        99,
        200,
        [
          [0, 99, 100],
          [1, 0, 100],
        ],
      ],
      [
        100,
        1001,
        [
          [1, 0, 100],
          [2, 0, 100],
        ],
      ],
      [299, 300, [[2, 99, 100]]],
    ];
    for (const [begin, end, expected] of vectors) {
      expect(rangesIn(layout, begin, end).map((r) => [r.parameter, r.begin, r.end])).toEqual(expected);
    }
  });

  test("for weights of 21, 35 and 25 elements aligned in float32 over two ranks", () => {
    expect(alignmentOf("float32")).toBe(4);
    expect(cut([21, 35, 25], 4, 2)).toEqual({
      numel: 85,
      shardNumel: 43,
      ranks: [
        [
          [0, 0, 21],
          [1, 0, 19],
        ],
        [
          [1, 19, 35],
          [2, 0, 25],
        ],
      ],
    });
  });

  test("for weights of 10, 25 and 15 elements aligned in float16 over two ranks", () => {
    expect([alignmentOf("float16"), alignmentOf("bfloat16")]).toEqual([8, 8]);
    expect(cut([10, 25, 15], 8, 2)).toEqual({
      numel: 63,
      shardNumel: 32,
      ranks: [
        [
          [0, 0, 10],
          [1, 0, 16],
        ],
        [
          [1, 16, 25],
          [2, 0, 15],
        ],
      ],
    });
  });

  test("for parameters of 15, 3 and 5 elements: lengths in every layout and world", () => {
    const table: readonly [alignment: number, numel: number, shards: readonly number[]][] = [
      [1, 23, [12, 8, 6]],
      [4, 25, [13, 9, 7]],
      [8, 29, [15, 10, 8]],
    ];
    for (const [alignment, numel, shards] of table) {
      for (const [i, shardNumel] of shards.entries()) {
        expect(cut([15, 3, 5], alignment, i + 2)).toMatchObject({ numel, shardNumel });
      }
    }
  });

  test("for parameters of 15, 3 and 5 elements: what each rank holds", () => {
    expect(cut([15, 3, 5], 1, 3).ranks).toEqual([
      [[0, 0, 8]],
      [
        [0, 8, 15],
        [1, 0, 1],
      ],
      [
        [1, 1, 3],
        [2, 0, 5],
      ],
    ]);
    expect(cut([15, 3, 5], 1, 4).ranks).toEqual([
      [[0, 0, 6]],
      [[0, 6, 12]],
      [
        [0, 12, 15],
        [1, 0, 3],
      ],
      [[2, 0, 5]],
    ]);
    expect(cut([15, 3, 5], 4, 2).ranks).toEqual([
      [[0, 0, 13]],
      [
        [0, 13, 15],
        [1, 0, 3],
        [2, 0, 5],
      ],
    ]);
  });

  test("for fewer elements than ranks share evenly", () => {
    const held = (numel: number) =>
      cut([numel], 1, 4).ranks.map((ranges) => (ranges[0]?.[2] ?? 0) - (ranges[0]?.[1] ?? 0));
    expect(held(9)).toEqual([3, 3, 3, 0]);
    expect(held(10)).toEqual([3, 3, 3, 1]);
    expect(held(1)).toEqual([1, 0, 0, 0]);
  });
});

describe("rangeBoxes", () => {
  test("covers the range and nothing else, in order, with at most 2n - 1 boxes", () => {
    const property = fc.property(
      fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 4 }),
      fc.nat(),
      fc.nat(),
      (shape, a, b) => {
        const numel = numelOf(shape);
        const [begin, end] = [a % (numel + 1), b % (numel + 1)].sort((x, y) => x - y) as [number, number];
        const boxes = rangeBoxes(shape, begin, end);
        expect(boxes.length).toBeLessThanOrEqual(Math.max(2 * shape.length - 1, 1));
        const visited: number[] = [];
        for (const box of boxes) {
          forEachRun(shape, box, (start, _, length) => {
            for (let i = 0; i < length; i++) visited.push(start + i);
          });
        }
        expect(visited).toEqual(Array.from({ length: end - begin }, (_, i) => begin + i));
      },
    );
    fc.assert(property, { seed: 11, numRuns: 500 });
  });

  test("needs all 2n - 1 for a range that begins and ends inside a row of every dim", () => {
    expect(rangeBoxes([3, 3, 3], 1, 26)).toEqual([
      { offsets: [0, 0, 1], sizes: [1, 1, 2] },
      { offsets: [0, 1, 0], sizes: [1, 2, 3] },
      { offsets: [1, 0, 0], sizes: [1, 3, 3] },
      { offsets: [2, 0, 0], sizes: [1, 2, 3] },
      { offsets: [2, 2, 0], sizes: [1, 1, 2] },
    ]);
  });
});

describe("flatShard", () => {
  test("covers every element exactly once, where the flat parameter has it, and its pieces follow each other", () => {
    const shape = fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 3 });
    const property = fc.property(
      fc.array(shape, { minLength: 1, maxLength: 5 }),
      fc.integer({ min: 1, max: 9 }),
      fc.constantFrom(1, 4, 8),
      (shapes, worldSize, alignment) => {
        const parameters = specs(shapes);
        const layout = flatLayout(parameters, alignment);
        const { starts } = layout;
        const shard = shardFlat(layout, worldSize);
        const covered = shapes.map((extents) => new Array<number>(numelOf(extents)).fill(0));
        for (let rank = 0; rank < worldSize; rank++) {
          const next = new Map<number, number>();
          for (const { parameter, shardOffset, ...box } of shard.pieces(rank)) {
            expect(shardOffset).toBe(next.get(parameter) ?? shardOffset);
            next.set(parameter, shardOffset + numelOf(box.sizes));
            expect(shardOffset + numelOf(box.sizes)).toBeLessThanOrEqual(shard.shardNumel);
            forEachRun(shapes[parameter]!, box, (start, offset, length) => {
              expect(rank * shard.shardNumel + shardOffset + offset).toBe(starts[parameter]! + start);
              for (let i = 0; i < length; i++) covered[parameter]![start + i]!++;
            });
          }
          for (const i of shapes.keys()) {
            const held = shard.pieces(rank).filter(({ parameter }) => parameter === i);
            expect(shard.localShape(i, rank)).toEqual([
              held.reduce((sum, { sizes }) => sum + numelOf(sizes), 0),
            ]);
          }
        }
        for (const counts of covered) expect(counts.every((count) => count === 1)).toBe(true);
        // Parameters are views of what was gathered: no copy.
        for (const [i, { alias }] of planMoves(shard).moves.entries()) {
          if (numelOf(shapes[i]!) > 0) expect(alias).toBe(starts[i]!);
        }
      },
    );
    fc.assert(property, { seed: 5, numRuns: 300 });
  });

  test("costs no more than a rank's own pieces in a world of thousands", () => {
    const shard = shardFlat(flatLayout(specs(Array.from({ length: 2000 }, () => [64, 3])), 4), 4096);
    for (const rank of [0, 1, 2047, 4095]) expect(shard.pieces(rank).length).toBeLessThanOrEqual(6);
  });

  test("aligns to what is gathered, and only for original parameters", () => {
    const parameters = specs([[15], [3], [5]]);
    expect(flatShard({ useOrigParams: false })(parameters, 2).shardNumel).toBe(12);
    expect(flatShard({ useOrigParams: true })(parameters, 2).shardNumel).toBe(13);
    expect(flatShard({ useOrigParams: true, paramDtype: "bfloat16" })(parameters, 2).shardNumel).toBe(15);
  });

  test("refuses no parameters, mixed dtypes and dtypes that are not floating", () => {
    expect(() => flatShard({ useOrigParams: false })([], 2)).toThrow(ShapeError);
    const mixed = [...specs([[2]]), ...specs([[2]], "float64")];
    expect(() => flatShard({ useOrigParams: false })(mixed, 2)).toThrow(/allowed is one dtype a unit/);
    expect(() => flatShard({ useOrigParams: false })(specs([[2]], "int64"), 2)).toThrow(ConfigError);
  });
});

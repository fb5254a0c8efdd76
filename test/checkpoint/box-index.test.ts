import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { indexBoxes } from "../../checkpoint/box-index.ts";
import { boxesOverlap, insideShape, intersectBoxes, volume } from "../../checkpoint/boxes.ts";
import type { Box } from "../../core/contracts/shard.ts";
import { cut, generator } from "./layouts.ts";

const boxArbitrary = (rank: number): fc.Arbitrary<Box> =>
  fc
    .array(fc.tuple(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 1, max: 6 })), {
      minLength: rank,
      maxLength: rank,
    })
    .map((axes) => ({ offsets: axes.map(([offset]) => offset), sizes: axes.map(([, size]) => size) }));

describe("the box index", () => {
  test("finds exactly what comparing with every box finds, for any boxes of any rank", () => {
    fc.assert(
      fc.property(
        fc
          .integer({ min: 0, max: 4 })
          .chain((rank) => fc.tuple(fc.array(boxArbitrary(rank), { maxLength: 80 }), boxArbitrary(rank))),
        ([boxes, region]) => {
          const plain = boxes.flatMap((box, i) => (boxesOverlap(box, region) ? [i] : []));
          expect(indexBoxes(boxes).overlapping(region)).toEqual(plain);
        },
      ),
    );
  });

  test("visits few of many disjoint boxes, in rows, columns and grids", () => {
    const side = 100;
    const layouts: [string, readonly Box[]][] = [
      ["rows", Array.from({ length: side * side }, (_, i) => ({ offsets: [i, 0], sizes: [1, 7] }))],
      ["columns", Array.from({ length: side * side }, (_, i) => ({ offsets: [0, i], sizes: [7, 1] }))],
      [
        "grid",
        Array.from({ length: side * side }, (_, i) => ({
          offsets: [Math.floor(i / side), i % side],
          sizes: [1, 1],
        })),
      ],
    ];
    for (const [, boxes] of layouts) {
      let reads = 0;
      const counted = boxes.map(({ offsets, sizes }) => ({
        sizes,
        get offsets() {
          reads += 1;
          return offsets;
        },
      }));
      const index = indexBoxes(counted);
      reads = 0;
      for (let i = 0; i < boxes.length; i += 97) expect(index.overlapping(boxes[i]!)).toEqual([i]);
      expect(reads).toBeLessThan((boxes.length / 97) * 200);
    }
  });
});

describe("boxes", () => {
  test("pieces of a cut meet any box in volumes that add up to it", () => {
    fc.assert(
      fc.property(fc.integer(), fc.array(fc.integer({ min: 1, max: 9 }), { maxLength: 4 }), (seed, shape) => {
        const random = generator(seed);
        const whole = { offsets: shape.map(() => 0), sizes: shape };
        const [target] = cut(whole, random, 2);
        const pieces = cut(whole, random, 5).filter((piece) => boxesOverlap(piece, target!));
        const shares = pieces.map((piece) => volume(intersectBoxes(piece, target!).sizes));
        expect(shares.reduce((a, b) => a + b, 0)).toBe(volume(target!.sizes));
      }),
    );
  });

  test("hostile numbers are outside every shape", () => {
    const hostile: readonly number[] = [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53];
    for (const value of hostile) {
      expect(insideShape({ offsets: [value], sizes: [1] }, [4])).toBe(false);
      expect(insideShape({ offsets: [0], sizes: [value] }, [4])).toBe(false);
    }
    expect(insideShape({ offsets: [0, 0], sizes: [1, 1] }, [4])).toBe(false);
    expect(insideShape({ offsets: [4], sizes: [0] }, [4])).toBe(true);
  });
});

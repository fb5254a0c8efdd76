import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { boxesOverlap, intersectBoxes, volume } from "../../checkpoint/boxes.ts";
import { batches, placeBatch, stridedTransfer } from "../../checkpoint/transfer.ts";
import { STORED_DTYPES } from "../../core/contracts/dtype.ts";
import type { Box } from "../../core/contracts/shard.ts";
import { cut, generator, tensorsArbitrary } from "./layouts.ts";
import { cutBox } from "./states.ts";

describe("transfers", () => {
  test("put every byte of a region where copying element by element puts it, reading forwards only", () => {
    fc.assert(
      fc.property(tensorsArbitrary, fc.integer(), ([tensor], seed) => {
        const random = generator(seed);
        const whole: Box = { offsets: tensor!.shape.map(() => 0), sizes: tensor!.shape };
        const source = cut(whole, random, 3).at(random(2) - 1)!;
        const target = cut(whole, random, 3).at(random(2) - 1)!;
        if (!boxesOverlap(source, target) || volume(source.sizes) === 0 || volume(target.sizes) === 0) return;
        const region = intersectBoxes(source, target);
        const { bytes } = STORED_DTYPES[tensor!.dtype];
        const base = 5;
        const file = new Uint8Array([...new Uint8Array(base), ...cutBox(tensor!, source)]);
        const out = new Uint8Array(volume(target.sizes) * bytes);
        let last = 0;
        let moved = 0;
        for (const batch of batches(stridedTransfer("f", base, source, target, region, bytes))) {
          expect(batch.begin).toBeGreaterThanOrEqual(last);
          last = batch.end;
          moved += batch.runs.reduce((sum, run) => sum + run.length, 0);
          placeBatch(batch, file.slice(batch.begin, batch.end), out);
        }
        expect(moved).toBe(volume(region.sizes) * bytes);
        // The target's region holds the tensor's values and the rest of it is untouched.
        const placed = { name: "t", dtype: tensor!.dtype, shape: target.sizes, bytes: out };
        const inTarget = {
          offsets: region.offsets.map((offset, d) => offset - target.offsets[d]!),
          sizes: region.sizes,
        };
        expect(cutBox(placed, inTarget)).toEqual(cutBox(tensor!, region));
      }),
    );
  });

  test("whole trailing axes join into one run", () => {
    const whole = { offsets: [0, 0, 0], sizes: [8, 4, 6] };
    const rows = { offsets: [2, 0, 0], sizes: [3, 4, 6] };
    expect(stridedTransfer("f", 64, whole, rows, rows, 4)).toMatchObject({
      length: 288,
      source: 64 + 192,
      target: 0,
      counts: [],
    });
    const middle = { offsets: [0, 1, 0], sizes: [8, 2, 6] };
    expect(stridedTransfer("f", 0, whole, middle, middle, 4)).toMatchObject({
      length: 48,
      counts: [8],
      sourceStrides: [96],
      targetStrides: [48],
    });
  });

  test("gaps up to 64 KiB are read along, wider ones are not, and big runs are split at 8 MiB", () => {
    const column = (columns: number) => {
      const whole = { offsets: [0, 0], sizes: [3, columns] };
      const box = { offsets: [0, 0], sizes: [3, 1] };
      return [...batches(stridedTransfer("f", 0, whole, box, box, 1))].map(({ begin, end }) => [begin, end]);
    };
    expect(column(65537)).toEqual([[0, 2 * 65537 + 1]]);
    expect(column(65538)).toEqual([0, 1, 2].map((row) => [row * 65538, row * 65538 + 1]));
    const big = { offsets: [0], sizes: [20 * 2 ** 20] };
    const sizes = [...batches(stridedTransfer("f", 64, big, big, big, 1))].map(
      ({ begin, end }) => end - begin,
    );
    expect(sizes).toEqual([8 * 2 ** 20 - 64, 8 * 2 ** 20, 4 * 2 ** 20 + 64]);
  });
});

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { DTYPES, type DType } from "../../../core/contracts/dtype.ts";
import { frameOf } from "../../../core/engine/frame.ts";

const dtypes = Object.keys(DTYPES) as DType[];

describe("frameOf", () => {
  const segments = fc.array(fc.record({ dtype: fc.constantFrom(...dtypes), numel: fc.nat(40) }), {
    maxLength: 6,
  });

  test("gives every segment of every rank bytes of its own, in order, where its dtype can be read", () => {
    fc.assert(
      fc.property(segments, fc.integer({ min: 1, max: 5 }), (specs, ranks) => {
        const frame = frameOf(specs);
        const bytes = frame.rankNumel * DTYPES[frame.dtype].bytes;
        let end = 0;
        for (let rank = 0; rank < ranks; rank++) {
          for (const { dtype, numel, start, stride } of frame.segments) {
            const size = DTYPES[dtype].bytes;
            expect(Number.isInteger(start) && Number.isInteger(stride)).toBe(true);
            const begin = (start + rank * stride) * size;
            expect(begin).toBeGreaterThanOrEqual(Math.max(end, rank * bytes));
            end = begin + numel * size;
            expect(end).toBeLessThanOrEqual((rank + 1) * bytes);
          }
        }
      }),
    );
  });

  test("of one dtype has neither gaps nor another dtype", () => {
    const frame = frameOf([
      { dtype: "bfloat16", numel: 3 },
      { dtype: "bfloat16", numel: 5 },
    ]);
    expect([frame.dtype, frame.rankNumel, frame.segments.map(({ start }) => start)]).toEqual([
      "bfloat16",
      8,
      [0, 3],
    ]);
  });
});

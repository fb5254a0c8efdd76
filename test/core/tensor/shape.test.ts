import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ShapeError } from "../../../core/contracts/errors.ts";
import {
  broadcastShapes,
  broadcastStrides,
  checkShape,
  normalizeDim,
  numelOf,
  stridesOf,
} from "../../../core/tensor/shape.ts";
import { broadcasts, shapes } from "./gradcheck.ts";

describe("shapes", () => {
  test("row-major strides number the elements without gaps", () => {
    fc.assert(
      fc.property(shapes, (shape) => {
        const strides = stridesOf(shape);
        if (numelOf(shape) === 0) return;
        expect(shape.reduce((last, extent, d) => last + (extent - 1) * strides[d]!, 0)).toBe(
          numelOf(shape) - 1,
        );
      }),
    );
    expect(stridesOf([2, 3, 4])).toEqual([12, 4, 1]);
    expect(numelOf([])).toBe(1);
  });

  test("broadcasting is symmetric and reads no element outside", () => {
    fc.assert(
      fc.property(broadcasts, ({ whole, a, b }) => {
        expect(broadcastShapes(a, b, "test")).toEqual(whole);
        expect(broadcastShapes(b, a, "test")).toEqual(whole);
        if (numelOf(whole) === 0) return;
        const last = broadcastStrides(a, whole).reduce((sum, stride, d) => sum + stride * (whole[d]! - 1), 0);
        expect(last).toBe(numelOf(a) - 1);
      }),
    );
    expect(() => broadcastShapes([2], [3], "add()")).toThrow(
      "add() failed: shapes [2] and [3] do not broadcast",
    );
  });

  test("dims count from either end, and no further", () => {
    expect(normalizeDim(-1, 3, "test")).toBe(2);
    expect(normalizeDim(0, 3, "test")).toBe(0);
    for (const dim of [3, -4, 0.5, Number.NaN])
      expect(() => normalizeDim(dim, 3, "test")).toThrow(ShapeError);
    expect(() => normalizeDim(0, 0, "test")).toThrow(ShapeError);
  });

  test("extents must be whole and not negative", () => {
    for (const extent of [-1, 0.5, Number.NaN, 2 ** 53]) {
      expect(() => checkShape([2, extent], "test")).toThrow(ShapeError);
    }
    checkShape([0, 3], "test");
  });
});

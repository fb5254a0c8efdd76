/**
 * Conformance of rotary positions.
 *
 * @module
 */
import { test } from "bun:test";
import { accumulatorDType } from "../../../core/contracts/dtype.ts";
import { cases, rounded, type Suite } from "./harness.ts";

export function rotaryConformance(suite: Suite): void {
  test("rotary turns pairs by the angles of their row, and its inverse turns them back, in place too", () =>
    cases(suite, 30, async (test, dtype, index) => {
      const [length, heads] = [test.integer(1, 20), test.extent(5)];
      // Rows beyond the angles begin anew; they need not fill a whole number of sequences.
      const rows = index % 3 === 0 ? length * test.integer(0, 3) : test.extent(50);
      const headDim = index % 2 === 0 ? 8 * test.integer(0, 5) : 2 * test.integer(1, 20);
      const half = headDim / 2;
      const angles = test.numbers(dtype, length * half, -4, 4);
      const wide = accumulatorDType(dtype);
      const [cos, sin] = [Math.cos, Math.sin].map((f) => angles.map((angle) => rounded(wide, f(angle)))) as [
        number[],
        number[],
      ];
      const values = test.numbers(dtype, rows * heads * headDim);
      const [turned, back] = [true, false].map((forward) =>
        values.map((value, at) => {
          const [d, row] = [at % headDim, Math.floor(at / headDim / heads)];
          const angle = (row % length) * half + (d % half);
          const other = d < half ? -values[at + half]! : values[at - half]!;
          return value * cos[angle]! + other * (forward ? 1 : -1) * sin[angle]!;
        }),
      ) as [number[], number[]];
      const x = test.put(dtype, values);
      const out = test.out(dtype, values.length);
      const tables = { cos: test.put(wide, cos), sin: test.put(wide, sin) };
      const shape = { rows, length, heads, headDim };
      const scale = values.map(() => 6);
      const what = `rotary ${JSON.stringify(shape)}`;
      const { kernels } = test.backend;
      kernels.rotary({ x, out, ...tables, ...shape, inverse: false });
      await test.expectClose(out, turned, what, { scale });
      kernels.rotary({ x, out, ...tables, ...shape, inverse: true });
      await test.expectClose(out, back, `${what} inverse`, { scale });
      kernels.rotary({ x, out: x, ...tables, ...shape, inverse: false });
      await test.expectClose(x, turned, `${what} in place`, { scale });
    }));
}

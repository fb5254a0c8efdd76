/**
 * Conformance of root-mean-square normalisation.
 *
 * @module
 */
import { test } from "bun:test";
import { accumulatorDType } from "../../../core/contracts/dtype.ts";
import { cases, type Suite } from "./harness.ts";

export function rmsNormConformance(suite: Suite): void {
  test("rmsNorm and its gradients equal the oracle, each optional part left out and in place too", () =>
    cases(suite, 16, async (test, dtype, index) => {
      // One row of more columns than a workgroup keeps in registers, some of one column, and others.
      const [rows, columns] = (
        [
          [1, 9000],
          [5, 1],
          [70, 64],
        ] as const
      )[index] ?? [test.extent(70), Math.max(1, test.extent(300))];
      const n = rows * columns;
      const eps = index % 3 === 0 ? 1e-6 : 0.1;
      const x = test.numbers(dtype, n);
      const weight = test.numbers(dtype, columns);
      const gradient = test.numbers(dtype, n);
      const [y, dx, rstds]: [number[], number[], number[]] = [[], [], []];
      const dWeight = weight.map(() => 0);
      for (let r = 0; r < rows; r++) {
        const row = x.slice(r * columns, (r + 1) * columns);
        const g = gradient.slice(r * columns, (r + 1) * columns);
        const rstd = 1 / Math.sqrt(row.reduce((s, v) => s + v * v, 0) / columns + eps);
        rstds.push(rstd);
        const projection = row.reduce((s, v, i) => s + v * g[i]! * weight[i]!, 0) / columns;
        for (const [i, v] of row.entries()) {
          y.push(v * rstd * weight[i]!);
          dx.push(rstd * g[i]! * weight[i]! - v * rstd ** 3 * projection);
          dWeight[i]! += g[i]! * v * rstd;
        }
      }
      const { kernels } = test.backend;
      const [xs, ws, gs] = [test.put(dtype, x), test.put(dtype, weight), test.put(dtype, gradient)];
      const [out, rstd] = [test.out(dtype, n), test.out(accumulatorDType(dtype), rows)];
      const tolerance = dtype === "float64" ? 1e-12 : 1e-5;
      kernels.rmsNorm({ x: xs, weight: ws, out, rstd, rows, columns, eps });
      const what = `rmsNorm of [${rows}, ${columns}]`;
      await test.expectClose(out, y, what, { tolerance });
      await test.expectClose(rstd, rstds, `${what} rstd`, { tolerance });
      const given = {
        x: xs,
        weight: ws,
        rstd: test.put(accumulatorDType(dtype), rstds),
        gradient: gs,
        rows,
        columns,
      };
      const outputs = {
        dx: index % 3 === 1 ? undefined : test.out(dtype, n),
        dWeight: index % 3 === 2 ? undefined : test.out(dtype, columns),
      };
      kernels.rmsNormBackward({ ...given, ...outputs });
      // Rows of one column nearly cancel, as what is left of them is eps.
      const sizes = dx.map((_, i) => 20 * rstds[Math.floor(i / columns)]!);
      const sums = weight.map(() => 9 * rows);
      if (outputs.dx) await test.expectClose(outputs.dx, dx, `${what} dx`, { tolerance, scale: sizes });
      if (outputs.dWeight)
        await test.expectClose(outputs.dWeight, dWeight, `${what} dWeight`, { tolerance, scale: sums });
      const last = test.out(dtype, columns);
      kernels.rmsNormBackward({ ...given, dx: gs, dWeight: last });
      await test.expectClose(gs, dx, `${what} dx in place`, { tolerance, scale: sizes });
      await test.expectClose(last, dWeight, `${what} dWeight beside it`, { tolerance, scale: sums });
    }));
}

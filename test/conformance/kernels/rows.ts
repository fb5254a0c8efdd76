/**
 * Conformance of kernels over rows: reductions, softmax, layer normalisation, cross entropy.
 *
 * @module
 */
import { test } from "bun:test";
import type { Span } from "../../../core/contracts/backend.ts";
import { accumulatorDType } from "../../../core/contracts/dtype.ts";
import { cases, rounded, type Suite } from "./harness.ts";

export function rowConformance(suite: Suite): void {
  for (const op of ["sum", "max"] as const) {
    test(`reduce ${op} equals the oracle, accumulating too`, () =>
      cases(suite, 30, async (test, dtype) => {
        const [outer, extent, inner] = [test.extent(12), test.extent(150), test.extent(70)];
        const accumulate = test.uniform() < 0.4;
        const values = test.numbers(dtype, outer * extent * inner);
        const before = test.numbers(dtype, outer * inner);
        const out = accumulate ? test.put(dtype, before) : test.out(dtype, outer * inner);
        test.backend.kernels.reduce(op, test.put(dtype, values), out, outer, extent, inner, accumulate);
        const want = before.map((start, at) => {
          let total = accumulate ? start : op === "sum" ? 0 : Number.NEGATIVE_INFINITY;
          for (let e = 0; e < extent; e++) {
            const value = values[(Math.floor(at / inner) * extent + e) * inner + (at % inner)]!;
            total = op === "sum" ? total + value : Math.max(value, total);
          }
          return total;
        });
        await test.expectClose(out, want, `reduce ${op} of [${outer}, ${extent}, ${inner}]`, {
          scale: want.map(() => 3 * extent),
          tolerance: dtype === "float64" ? 1e-14 : 1e-6,
        });
      }));
  }

  test("reduce max keeps not-a-number", () =>
    cases(suite, 1, async (test, dtype) => {
      const out = test.out(dtype, 2);
      const x = test.put(dtype, [1, 2, Number.NaN, 5, 9, 7, 8, 1]);
      test.backend.kernels.reduce("max", x, out, 2, 4, 1);
      await test.expectClose(out, [Number.NaN, 9], "reduce max");
    }));

  for (const p of [1, 2, 3, Number.POSITIVE_INFINITY]) {
    test(`normPower of ${p} equals the oracle`, () =>
      cases(suite, 12, async (test, dtype, index) => {
        const length = [0, 1, 2, 3, 4, 5, 63, 64, 1000, 10_007, 255, 70_001][index]!;
        const values = test.numbers(dtype, length);
        const out = test.out(accumulatorDType(dtype), 1);
        test.backend.kernels.normPower(test.put(dtype, values), out, p);
        const sizes = values.map(Math.abs);
        const want =
          p === Number.POSITIVE_INFINITY ? Math.max(0, ...sizes) : sizes.reduce((s, v) => s + v ** p, 0);
        await test.expectClose(out, [want], `normPower of ${p} over ${length}`);
      }));
  }

  for (const log of [false, true]) {
    const name = log ? "log-softmax" : "softmax";
    test(`${name} and its gradient equal the oracle, in place too`, () =>
      cases(suite, 24, async (test, dtype) => {
        const [rows, columns] = [test.extent(20), Math.max(1, test.extent(200))];
        const values = test.numbers(dtype, rows * columns, -20, 20);
        const gradients = test.numbers(dtype, rows * columns);
        const y: number[] = [];
        const dx: number[] = [];
        for (let row = 0; row < rows; row++) {
          const x = values.slice(row * columns, (row + 1) * columns);
          const g = gradients.slice(row * columns, (row + 1) * columns);
          const total = x.reduce((s, v) => s + Math.exp(v), 0);
          const exact = x.map((v) => Math.exp(v) / total);
          for (const value of exact) y.push(log ? Math.log(value) : value);
          // The gradient is that of the output as it is given.
          const given = y.slice(-columns).map((value) => rounded(dtype, value));
          const p = log ? given.map(Math.exp) : given;
          for (const [j, value] of p.entries()) {
            let d = 0;
            for (const [i, q] of p.entries()) d += g[i]! * ((i === j ? 1 : 0) - value) * (log ? 1 : q);
            dx.push(d);
          }
        }
        const x = test.put(dtype, values);
        const out = test.out(dtype, rows * columns);
        test.backend.kernels.softmax(x, out, rows, columns, log);
        await test.expectClose(out, y, name);
        test.backend.kernels.softmax(x, x, rows, columns, log);
        await test.expectClose(x, y, `${name} in place`);
        const ySpan = test.put(dtype, y);
        const gradient = test.put(dtype, gradients);
        const scale = dx.map(() => (log ? 3 * columns : 6));
        test.backend.kernels.softmaxBackward(ySpan, gradient, out, rows, columns, log);
        await test.expectClose(out, dx, `${name} backward`, { scale });
        test.backend.kernels.softmaxBackward(ySpan, gradient, gradient, rows, columns, log);
        await test.expectClose(gradient, dx, `${name} backward in place`, { scale });
      }));
  }

  test("softmax gives 0 to -Infinity and does not overflow", () =>
    cases(suite, 1, async (test, dtype) => {
      const low = Number.NEGATIVE_INFINITY;
      const x = test.put(dtype, [low, 1e4, low, 1e4, low, low]);
      const out = test.out(dtype, 6);
      test.backend.kernels.softmax(x, out, 1, 6, false);
      await test.expectClose(out, [0, 0.5, 0, 0.5, 0, 0], "softmax", { tolerance: 1e-7 });
    }));

  test("layerNorm and its gradients equal the oracle, each optional part left out too", () =>
    cases(suite, 30, async (test, dtype, index) => {
      const [rows, columns] = [test.extent(70), test.integer(2, 140)];
      const eps = 1e-5;
      const n = rows * columns;
      const x = test.numbers(dtype, n).map((v) => (index % 3 === 0 ? rounded(dtype, v + 50) : v));
      const [weight, bias] = [test.numbers(dtype, columns), test.numbers(dtype, columns)];
      const gradient = test.numbers(dtype, n);
      const withBias = index % 4 !== 0;
      const [y, dx]: [number[], number[]] = [[], []];
      const [means, rstds]: [number[], number[]] = [[], []];
      const dWeight = weight.map(() => 0);
      const dBias = weight.map(() => 0);
      for (let r = 0; r < rows; r++) {
        const row = x.slice(r * columns, (r + 1) * columns);
        const g = gradient.slice(r * columns, (r + 1) * columns);
        const mean = row.reduce((s, v) => s + v, 0) / columns;
        const rstd = 1 / Math.sqrt(row.reduce((s, v) => s + (v - mean) * (v - mean), 0) / columns + eps);
        means.push(mean);
        rstds.push(rstd);
        const normal = row.map((v) => (v - mean) * rstd);
        const gw = g.map((v, i) => v * weight[i]!);
        const average = gw.reduce((s, v) => s + v, 0) / columns;
        const projection = gw.reduce((s, v, i) => s + v * normal[i]!, 0) / columns;
        for (const [i, value] of normal.entries()) {
          y.push(value * weight[i]! + (withBias ? bias[i]! : 0));
          dx.push(rstd * (gw[i]! - average - value * projection));
          dWeight[i]! += g[i]! * value;
          dBias[i]! += g[i]!;
        }
      }
      const put = (values: number[]): Span => test.put(dtype, values);
      const [xs, ws] = [put(x), put(weight)];
      const wide = accumulatorDType(dtype);
      const [out, mean, rstd] = [test.out(dtype, n), test.out(wide, rows), test.out(wide, rows)];
      const tolerance = dtype === "float64" ? 1e-11 : index % 3 === 0 ? 2e-4 : 1e-5;
      test.backend.kernels.layerNorm({
        ...{ x: xs, weight: ws, out, mean, rstd, rows, columns, eps },
        ...(withBias ? { bias: put(bias) } : {}),
      });
      await test.expectClose(out, y, "layerNorm", { tolerance });
      await test.expectClose(mean, means, "layerNorm mean", { tolerance });
      await test.expectClose(rstd, rstds, "layerNorm rstd", { tolerance });
      const wanted = { dx: index % 5 !== 1, dWeight: index % 5 !== 2, dBias: index % 5 !== 3 };
      const outputs = {
        dx: wanted.dx ? test.out(dtype, n) : undefined,
        dWeight: wanted.dWeight ? test.out(dtype, columns) : undefined,
        dBias: wanted.dBias ? test.out(dtype, columns) : undefined,
      };
      const given = {
        x: xs,
        weight: ws,
        mean: test.put(wide, means),
        rstd: test.put(wide, rstds),
        gradient: put(gradient),
        rows,
        columns,
      };
      test.backend.kernels.layerNormBackward({ ...given, ...outputs });
      const sums = weight.map(() => 9 * rows);
      if (outputs.dx)
        await test.expectClose(outputs.dx, dx, "layerNorm dx", { tolerance, scale: dx.map(() => 50) });
      if (outputs.dWeight)
        await test.expectClose(outputs.dWeight, dWeight, "layerNorm dWeight", { tolerance, scale: sums });
      if (outputs.dBias) await test.expectClose(outputs.dBias, dBias, "layerNorm dBias", { scale: sums });
    }));

  test("crossEntropy and its gradient equal the oracle, ignored rows and in place too", () =>
    cases(suite, 24, async (test, dtype, index) => {
      const [rows, columns] = [test.extent(40), test.integer(1, 300)];
      const logits = test.numbers(dtype, rows * columns, -15, 15);
      const targets = Array.from({ length: rows }, () =>
        test.uniform() < 0.2 ? -100 : test.integer(0, columns - 1),
      );
      const gradients = test.numbers(dtype, rows);
      const lse: number[] = [];
      const losses: number[] = [];
      const dLogits: number[] = [];
      for (let r = 0; r < rows; r++) {
        const row = logits.slice(r * columns, (r + 1) * columns);
        const total = row.reduce((s, v) => s + Math.exp(v), 0);
        const target = targets[r]!;
        lse.push(Math.log(total));
        losses.push(target === -100 ? 0 : Math.log(total) - row[target]!);
        for (const [j, v] of row.entries()) {
          const slope = Math.exp(v) / total - (j === target ? 1 : 0);
          dLogits.push(target === -100 ? 0 : slope * gradients[r]!);
        }
      }
      const kernels = test.backend.kernels;
      const wide = accumulatorDType(dtype);
      const x = test.put(dtype, logits);
      const t = test.put(index % 2 === 0 ? "int32" : "int64", targets);
      const [loss, sums, out] = [test.out(wide, rows), test.out(wide, rows), test.out(dtype, rows * columns)];
      kernels.crossEntropy(x, t, loss, sums, rows, columns);
      await test.expectClose(loss, losses, "crossEntropy", { scale: losses.map(() => 30) });
      await test.expectClose(sums, lse, "crossEntropy logSumExp");
      const gradient = test.put(wide, gradients);
      kernels.crossEntropyBackward(x, t, test.put(wide, lse), gradient, out, rows, columns);
      await test.expectClose(out, dLogits, "crossEntropy backward");
      kernels.crossEntropyBackward(x, t, test.put(wide, lse), gradient, x, rows, columns);
      await test.expectClose(x, dLogits, "crossEntropy backward in place");
    }));
}

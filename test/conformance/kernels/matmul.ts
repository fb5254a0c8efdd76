/**
 * Conformance of matmul.
 *
 * @module
 */
import { test } from "bun:test";
import { UNARY } from "./elementwise.ts";
import { type Case, cases, type FloatDType, isHalf, type Suite } from "./harness.ts";

const ACTIVATIONS = ["relu", "gelu", "geluTanh", "silu"] as const;

interface Layout {
  transposed: boolean;
  rowStride: number;
  batchStride: number;
  length: number;
}

function layout(
  test: Case,
  batch: number,
  rows: number,
  columns: number,
  plain: boolean,
  broadcast: boolean,
): Layout {
  const transposed = !plain && test.uniform() < 0.5;
  const [r, c] = transposed ? [columns, rows] : [rows, columns];
  const rowStride = c + (test.uniform() < 0.5 ? 0 : test.integer(1, 9));
  const size = r * rowStride;
  const batchStride = broadcast ? 0 : size + (test.uniform() < 0.5 ? 0 : test.integer(1, 5));
  return { transposed, rowStride, batchStride, length: batch === 0 ? 0 : (batch - 1) * batchStride + size };
}

function at(l: Layout, b: number, i: number, j: number): number {
  return b * l.batchStride + (l.transposed ? j * l.rowStride + i : i * l.rowStride + j);
}

export function matmulConformance(suite: Suite): void {
  const run = async (
    test: Case,
    dtype: FloatDType,
    [batch, m, n, k]: readonly [number, number, number, number],
  ): Promise<void> => {
    const a = layout(test, batch, m, k, false, false);
    const b = layout(test, batch, k, n, false, test.uniform() < 0.4);
    const out = layout(test, batch, m, n, true, false);
    const activation = test.uniform() < 0.4 ? test.pick(ACTIVATIONS) : undefined;
    const [alpha, accumulate, withBias] = [
      test.pick([undefined, 0.5, -2]),
      activation === undefined && test.uniform() < 0.4,
      test.uniform() < 0.4,
    ];
    const aValues = test.numbers(dtype, a.length);
    const bValues = test.numbers(dtype, b.length);
    const bias = test.numbers(dtype, n);
    // Elements between rows must survive, so the result is compared whole.
    const before = accumulate ? test.numbers(dtype, out.length) : Array<number>(out.length).fill(Number.NaN);
    const want = [...before];
    const scale = before.map(() => 0);
    for (let x = 0; x < batch; x++) {
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < n; j++) {
          let sum = 0;
          let size = 0;
          for (let p = 0; p < k; p++) {
            const term = aValues[at(a, x, i, p)]! * bValues[at(b, x, p, j)]!;
            sum += term;
            size += Math.abs(term);
          }
          const to = at(out, x, i, j);
          want[to] = (alpha ?? 1) * sum + (withBias ? bias[j]! : 0) + (accumulate ? before[to]! : 0);
          scale[to] = 2 * size + 6;
        }
      }
    }
    const target = test.put(dtype, before);
    const stored = activation !== undefined && test.uniform() < 0.6 ? test.put(dtype, before) : undefined;
    test.backend.kernels.matmul({
      a: { span: test.put(dtype, aValues), ...a },
      b: { span: test.put(dtype, bValues), ...b },
      out: { span: target, ...out },
      batch,
      m,
      n,
      k,
      ...(alpha === undefined ? {} : { alpha }),
      ...(withBias ? { bias: test.put(dtype, bias) } : {}),
      accumulate,
      ...(activation === undefined ? {} : { activation }),
      ...(stored === undefined ? {} : { preactivation: stored }),
    });
    const what = `matmul ${JSON.stringify({ batch, m, n, k, alpha, accumulate, withBias, activation, a, b, out })}`;
    const closeness = { scale, tolerance: dtype === "float64" ? 1e-14 : 1e-6 };
    if (stored !== undefined) await test.expectClose(stored, want, `${what} preactivation`, closeness);
    const activated = activation === undefined ? want : want.map(UNARY[activation]);
    await test.expectClose(target, activated, what, closeness);
  };

  test("matmul equals the oracle over random shapes, strides, transposes, bias, alpha, accumulate and activations", () =>
    cases(suite, 60, (test, dtype) =>
      run(test, dtype, [test.integer(0, 3), test.extent(70), test.extent(70), test.extent(70)]),
    ));

  test("matmul is right beyond every block size", () =>
    cases(suite, 12, async (test, dtype, index) => {
      const large = [
        [1, 131, 20, 300],
        [1, 125, 530, 17],
        [1, 7, 1030, 9],
        [2, 260, 9, 260],
      ] as const;
      // The products are float32's: one layout of each will do.
      if (isHalf(dtype) && index >= large.length) return;
      await run(test, dtype, large[index % large.length]!);
    }));

  test("matmul without depth gives the bias, or zero", () =>
    cases(suite, 6, (test, dtype) => run(test, dtype, [2, 5, 6, 0])));
}

/**
 * Conformance of attention: forward and backward against nested loops over a packed or separate layout.
 *
 * @module
 */
import { test } from "bun:test";
import { accumulatorDType } from "../../../core/contracts/dtype.ts";
import type { HeadsOperand } from "../../../core/contracts/kernels.ts";
import { type Case, cases, type FloatDType, isHalf, rounded, type Suite, UNIT } from "./harness.ts";

type Layout = Omit<HeadsOperand, "span"> & { readonly length: number; readonly width: number };

function layoutOf(test: Case, batch: number, rows: number, width: number): Layout {
  const rowStride = width + (test.uniform() < 0.5 ? 0 : test.integer(1, 2 * width));
  const batchStride = rows * rowStride + (test.uniform() < 0.5 ? 0 : 3);
  return { rowStride, batchStride, length: batch * batchStride, width };
}

function at(l: Layout, b: number, t: number, h: number, headDim: number, d: number): number {
  return b * l.batchStride + t * l.rowStride + h * headDim + d;
}

/** Not-a-number between rows: reading or writing there would show. */
function valuesOf(test: Case, dtype: FloatDType, l: Layout, batch: number, rows: number): number[] {
  const values = Array<number>(l.length).fill(Number.NaN);
  for (let b = 0; b < batch; b++) {
    for (let t = 0; t < rows; t++) {
      const row = test.numbers(dtype, l.width, -1.5, 1.5);
      for (const [i, value] of row.entries()) values[b * l.batchStride + t * l.rowStride + i] = value;
    }
  }
  return values;
}

interface Extents {
  readonly batch: number;
  readonly heads: number;
  readonly keyHeads: number;
  readonly queryLength: number;
  readonly keyLength: number;
  readonly headDim: number;
}

async function run(test: Case, dtype: FloatDType, extents: Extents, causal: boolean): Promise<void> {
  const { batch, heads, keyHeads, queryLength, keyLength, headDim } = extents;
  const scale = 1 / Math.sqrt(Math.max(1, headDim));
  const shape = { ...extents, scale, causal };
  const ofQuery = (): Layout => layoutOf(test, batch, queryLength, heads * headDim);
  const ofKey = (): Layout => layoutOf(test, batch, keyLength, keyHeads * headDim);
  const [lq, lk, lv, lo, lg] = [ofQuery(), ofKey(), ofKey(), ofQuery(), ofQuery()];
  const q = valuesOf(test, dtype, lq, batch, queryLength);
  const k = valuesOf(test, dtype, lk, batch, keyLength);
  const v = valuesOf(test, dtype, lv, batch, keyLength);
  const g = valuesOf(test, dtype, lg, batch, queryLength);
  const blank = (l: Layout): number[] => Array<number>(l.length).fill(Number.NaN);
  const zeroed = (l: Layout, rows: number): number[] => {
    const values = blank(l);
    for (let b = 0; b < batch; b++) {
      for (let t = 0; t < rows; t++)
        values.fill(0, b * l.batchStride + t * l.rowStride, b * l.batchStride + t * l.rowStride + l.width);
    }
    return values;
  };
  const out = zeroed(lo, queryLength);
  const [dq, dk, dv] = [zeroed(lq, queryLength), zeroed(lk, keyLength), zeroed(lv, keyLength)];
  const lse: number[] = [];
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const kh = Math.floor((h * keyHeads) / heads);
      for (let t = 0; t < queryLength; t++) {
        const seen = causal ? Math.max(0, Math.min(keyLength, keyLength - queryLength + t + 1)) : keyLength;
        const weights: number[] = [];
        for (let s = 0; s < seen; s++) {
          let score = 0;
          for (let d = 0; d < headDim; d++)
            score += q[at(lq, b, t, h, headDim, d)]! * k[at(lk, b, s, kh, headDim, d)]!;
          weights.push(Math.exp(score * scale));
        }
        const total = weights.reduce((a, w) => a + w, 0);
        lse.push(Math.log(total));
        const p = weights.map((w) => w / total);
        const dp: number[] = [];
        let expected = 0;
        for (let s = 0; s < seen; s++) {
          let sum = 0;
          for (let d = 0; d < headDim; d++) {
            const gradient = g[at(lg, b, t, h, headDim, d)]!;
            const value = v[at(lv, b, s, kh, headDim, d)]!;
            sum += gradient * value;
            out[at(lo, b, t, h, headDim, d)]! += p[s]! * value;
            dv[at(lv, b, s, kh, headDim, d)]! += p[s]! * gradient;
          }
          dp.push(sum);
          expected += sum * p[s]!;
        }
        // The backward pass knows the output as it was rounded.
        if (isHalf(dtype)) {
          expected = 0;
          for (let d = 0; d < headDim; d++)
            expected += rounded(dtype, out[at(lo, b, t, h, headDim, d)]!) * g[at(lg, b, t, h, headDim, d)]!;
        }
        for (let s = 0; s < seen; s++) {
          const ds = p[s]! * (dp[s]! - expected) * scale;
          for (let d = 0; d < headDim; d++) {
            dq[at(lq, b, t, h, headDim, d)]! += ds * k[at(lk, b, s, kh, headDim, d)]!;
            dk[at(lk, b, s, kh, headDim, d)]! += ds * q[at(lq, b, t, h, headDim, d)]!;
          }
        }
      }
    }
  }
  const operand = (l: Layout, values: readonly number[]): HeadsOperand => ({
    ...l,
    span: test.put(dtype, values),
  });
  const [query, key, value] = [operand(lq, q), operand(lk, k), operand(lv, v)];
  const result = operand(lo, blank(lo));
  const logSumExp = test.out(accumulatorDType(dtype), batch * heads * queryLength);
  const what = `attention ${JSON.stringify(shape)}`;
  test.backend.kernels.attention({ shape, query, key, value, out: result, logSumExp });
  await test.expectClose(result.span, out, what);
  await test.expectClose(logSumExp, lse, `${what} logSumExp`);
  const [dQuery, dKey, dValue] = [operand(lq, blank(lq)), operand(lk, blank(lk)), operand(lv, blank(lv))];
  test.backend.kernels.attentionBackward({
    ...{ shape, query, key, value, out: result, logSumExp, gradient: operand(lg, g), dQuery, dKey, dValue },
  });
  // An output close to the middle of two 16-bit numbers may have gone to the other one.
  const tolerance = dtype === "float64" ? 1e-12 : isHalf(dtype) ? 5 * UNIT[dtype] : 1e-5;
  const size = (values: readonly number[]): number[] => values.map(() => (isHalf(dtype) ? 0 : headDim));
  await test.expectClose(dQuery.span, dq, `${what} dQuery`, { tolerance, scale: size(dq) });
  await test.expectClose(dKey.span, dk, `${what} dKey`, { tolerance, scale: size(dk) });
  await test.expectClose(dValue.span, dv, `${what} dValue`, { tolerance, scale: size(dv) });
}

export function attentionConformance(suite: Suite): void {
  for (const causal of [true, false]) {
    test(`attention${causal ? " under a causal mask" : ""} and its gradients equal the oracle`, () =>
      cases(suite, 20, async (test, dtype) => {
        const keyHeads = test.integer(1, 3);
        const extents = {
          batch: test.integer(0, 2),
          heads: keyHeads * test.integer(1, 3),
          keyHeads,
          queryLength: test.extent(40),
          keyLength: test.extent(40),
          headDim: test.integer(1, 20),
        };
        await run(test, dtype, extents, causal);
      }));

    test(`attention${causal ? " under a causal mask" : ""} is right over several blocks of rows`, () =>
      cases(suite, 2, async (test, dtype, index) => {
        const lengths =
          index === 0 ? { queryLength: 130, keyLength: 130 } : { queryLength: 70, keyLength: 140 };
        await run(test, dtype, { batch: 1, heads: 2, keyHeads: 1, headDim: 16, ...lengths }, causal);
      }));
  }
}

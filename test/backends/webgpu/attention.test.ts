/**
 * Attention on a GPU: the tiled kernels against their plain twin, float16 (on matrix units where there are some) against
 * float32, and the edges that conformance does not reach.
 */
import { expect, setDefaultTimeout } from "bun:test";
import { createWebgpuBackend, type WebgpuBackend } from "../../../backends/webgpu/backend.ts";
import type { Span } from "../../../core/contracts/backend.ts";
import { DTYPES, type DType, newHostArray } from "../../../core/contracts/dtype.ts";
import type { AttentionShape, HeadsOperand } from "../../../core/contracts/kernels.ts";
import { randomUniform, streamKey } from "../../../core/tensor/random.ts";
import { testGpu } from "./gpu.ts";

// Software adapters compile kernels slowly.
setDefaultTimeout(120_000);

type Float = "float32" | "float16";
type Results = Readonly<Record<"out" | "logSumExp" | "dQuery" | "dKey" | "dValue", number[]>>;

/** Attention and its gradients over packed query, key and value; inputs are the same numbers in either dtype. */
async function run(
  backend: WebgpuBackend,
  dtype: Float,
  given: Omit<AttentionShape, "scale">,
  options: { readonly pad?: number; readonly stats?: Float } = {},
): Promise<Results> {
  const { batch, heads, keyHeads, queryLength, keyLength, headDim } = given;
  const { pad = 0, stats = "float32" } = options;
  const shape = { ...given, scale: 1 / Math.sqrt(headDim) };
  const buffers: Span[] = [];
  const span = (length: number, of: DType, values?: Float16Array): Span => {
    const buffer = backend.allocate(length * DTYPES[of].bytes, "activation");
    const host = (newHostArray(of, length) as Float32Array).fill(Number.NaN);
    if (values !== undefined) host.set(values);
    const made: Span = { buffer, dtype: of, offset: 0, length };
    backend.write(made, host);
    buffers.push(made);
    return made;
  };
  const numbers = (stream: number, length: number): Float16Array => {
    const uniform = new Float64Array(length);
    randomUniform(streamKey(6, "attention", stream), 0, uniform);
    return Float16Array.from(uniform, (u) => 3 * u - 1.5);
  };
  const operand = (stream: number, rows: number, width: number, fill: boolean): HeadsOperand => {
    const rowStride = width + pad;
    const length = batch * rows * rowStride;
    return {
      span: span(length, dtype, fill ? numbers(stream, length) : undefined),
      rowStride,
      batchStride: rows * rowStride,
    };
  };
  const [wide, narrow] = [heads * headDim, keyHeads * headDim];
  const query = operand(1, queryLength, wide, true);
  const [key, value] = [operand(2, keyLength, narrow, true), operand(3, keyLength, narrow, true)];
  const [out, gradient] = [operand(4, queryLength, wide, false), operand(5, queryLength, wide, true)];
  const dQuery = operand(6, queryLength, wide, false);
  const [dKey, dValue] = [operand(7, keyLength, narrow, false), operand(8, keyLength, narrow, false)];
  const logSumExp = span(batch * heads * queryLength, stats);
  backend.kernels.attention({ shape, query, key, value, out, logSumExp });
  backend.kernels.attentionBackward({
    ...{ shape, query, key, value, out, logSumExp, gradient, dQuery, dKey, dValue },
  });
  const read = async (from: Span): Promise<number[]> =>
    Array.from((await backend.read(from)) as Float32Array);
  const results = {
    out: await read(out.span),
    logSumExp: await read(logSumExp),
    dQuery: await read(dQuery.span),
    dKey: await read(dKey.span),
    dValue: await read(dValue.span),
  };
  for (const { buffer } of buffers) backend.release(buffer);
  return results;
}

/** Fails unless results agree within `tolerance * (1 + |want|)`; what was never written (NaN) is so in both. */
function expectClose(got: Results, want: Results, tolerance: number): void {
  for (const name of ["out", "logSumExp", "dQuery", "dKey", "dValue"] as const) {
    expect(got[name].length).toBe(want[name].length);
    for (const [i, wanted] of want[name].entries()) {
      const value = got[name][i]!;
      if (Object.is(value, wanted) || Math.abs(value - wanted) <= tolerance * (1 + Math.abs(wanted)))
        continue;
      expect.unreachable(`${name}: element ${i} is ${value}, wanted ${wanted}`);
    }
  }
}

const SHAPE = { batch: 1, heads: 4, keyHeads: 2, queryLength: 70, keyLength: 75, headDim: 16, causal: true };

testGpu(
  "tiled attention equals its plain twin over several blocks of rows",
  { kernels: "tiled" },
  async (tiled) => {
    const plain = await createWebgpuBackend({ settings: { checks: "on", kernels: "plain" } });
    try {
      expectClose(await run(tiled, "float32", SHAPE), await run(plain, "float32", SHAPE), 2e-5);
    } finally {
      await plain.dispose();
    }
  },
);

testGpu(
  "float16 attention equals float32 within its rounding, aligned or not, whatever keeps the sums",
  {},
  async (backend) => {
    if (!backend.capabilities.computeDTypes.includes("float16")) return;
    for (const shape of [
      SHAPE,
      { ...SHAPE, batch: 2, keyHeads: 4, headDim: 64, queryLength: 130, keyLength: 130 },
      { ...SHAPE, headDim: 20, causal: false },
      { ...SHAPE, heads: 2, keyHeads: 1, headDim: 128, keyLength: 100 },
    ]) {
      for (const pad of [0, 3]) {
        const options = { pad, stats: pad === 0 ? "float32" : "float16" } as const;
        expectClose(
          await run(backend, "float16", shape, options),
          await run(backend, "float32", shape, { pad }),
          2e-2,
        );
      }
    }
  },
);

testGpu("attention in parts of the batch equals attention at once", {}, async (whole) => {
  const shape = { ...SHAPE, batch: 5 };
  const parts = await createWebgpuBackend({ settings: { checks: "on", "binding-limit": "32768" } });
  try {
    expectClose(await run(parts, "float32", shape), await run(whole, "float32", shape), 1e-6);
  } finally {
    await parts.dispose();
  }
});

testGpu("queries that see no key give zero, and pass no gradient on", {}, async (backend) => {
  const shape = { ...SHAPE, queryLength: 9, keyLength: 3, headDim: 4 };
  const { out, logSumExp, dQuery } = await run(backend, "float32", shape);
  const blind = 6 * 4 * 4;
  expect(out.slice(0, blind).every((x) => x === 0)).toBe(true);
  expect(dQuery.slice(0, blind).every((x) => x === 0)).toBe(true);
  expect(logSumExp.slice(0, 6)).toEqual(Array(6).fill(Number.NEGATIVE_INFINITY));
  expect(logSumExp.slice(6, 9).every(Number.isFinite)).toBe(true);
});

testGpu(
  "heads deeper than the tiles are computed, and deeper than any kernel refused",
  {},
  async (backend) => {
    const deep = await run(backend, "float32", { ...SHAPE, queryLength: 5, keyLength: 6, headDim: 160 });
    expect(Object.values(deep).every((values) => values.every(Number.isFinite))).toBe(true);
    expect(run(backend, "float32", { ...SHAPE, headDim: 300 })).rejects.toThrow("heads of 300 elements");
  },
);

testGpu("attention of heads that cannot be shared is refused", {}, async (backend) => {
  expect(run(backend, "float32", { ...SHAPE, keyHeads: 3 })).rejects.toThrow("4 heads over 3 key heads");
});

/**
 * Matrix products on a GPU: tiled kernels against their plain twin and a float64 oracle, splits, parts, and float16. What
 * tile a product gets follows from its shape, so shapes here lie on either side of where the choice changes.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import type { WebgpuBackend } from "../../../backends/webgpu/backend.ts";
import { splitsOf } from "../../../backends/webgpu/kernels/matmul-product.ts";
import type { Span } from "../../../core/contracts/backend.ts";
import { DTYPES, newHostArray } from "../../../core/contracts/dtype.ts";
import type { MatmulArgs, MatrixOperand } from "../../../core/contracts/kernels.ts";
import { randomUniform, streamKey } from "../../../core/tensor/random.ts";
import { testGpu } from "./gpu.ts";

// Software adapters compile kernels slowly.
setDefaultTimeout(120_000);

type Float = "float32" | "float16";

interface Case {
  readonly batch?: number;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly order?: "nn" | "nt" | "tn" | "tt";
  /** Elements before each operand, and added to each row. */
  readonly offset?: number;
  readonly pad?: number;
  readonly alpha?: number;
  readonly bias?: boolean;
  readonly accumulate?: boolean;
  readonly dtype?: Float;
  readonly out?: Float;
}

/** A span that holds `values` from element `offset` on. */
function put(backend: WebgpuBackend, dtype: Float, values: ArrayLike<number>, offset: number): Span {
  const length = offset + values.length;
  const buffer = backend.allocate(length * DTYPES[dtype].bytes, "activation");
  const host = newHostArray(dtype, length) as Float32Array;
  host.fill(Number.NaN);
  host.set(Array.from(values), offset);
  backend.write({ buffer, dtype, offset: 0, length }, host);
  return { buffer, dtype, offset, length: values.length };
}

function numbers(stream: number, length: number, dtype: Float): Float32Array {
  const uniform = new Float64Array(length);
  randomUniform(streamKey(5, "matmul", stream), 0, uniform);
  const values = Float32Array.from(uniform, (u) => 2 * u - 1);
  return dtype === "float16" ? new Float32Array(new Float16Array(values)) : values;
}

/** Runs a case and compares every element with float64; between rows nothing may be written. Returns the result. */
async function run(backend: WebgpuBackend, given: Case): Promise<Float32Array> {
  const {
    batch = 1,
    m,
    n,
    k,
    order = "nn",
    offset = 0,
    pad = 0,
    alpha = 1,
    dtype = "float32",
    out = dtype,
  } = given;
  const [ta, tb] = [order[0] === "t", order[1] === "t"];
  const make = (stream: number, rows: number, columns: number, transposed: boolean) => {
    const [r, c] = transposed ? [columns, rows] : [rows, columns];
    const rowStride = c + pad;
    const values = numbers(stream, batch * r * rowStride, dtype);
    const at = (b: number, i: number, j: number): number =>
      values[b * r * rowStride + (transposed ? j * rowStride + i : i * rowStride + j)]!;
    const operand: MatrixOperand = {
      ...{ span: put(backend, dtype, values, offset), rowStride, batchStride: r * rowStride, transposed },
    };
    return { operand, at };
  };
  const [a, b] = [make(1, m, k, ta), make(2, k, n, tb)];
  const bias = numbers(3, n, dtype);
  const rowStride = n + pad;
  const before = given.accumulate
    ? numbers(4, batch * m * rowStride, out)
    : new Float32Array(batch * m * rowStride).fill(Number.NaN);
  const target = put(backend, out, before, offset);
  const args: MatmulArgs = {
    ...{ a: a.operand, b: b.operand, batch, m, n, k, alpha, accumulate: given.accumulate ?? false },
    out: { span: target, rowStride, batchStride: m * rowStride, transposed: false },
    ...(given.bias ? { bias: put(backend, dtype, bias, offset) } : {}),
  };
  backend.kernels.matmul(args);
  const got = Float32Array.from((await backend.read(target)) as Float32Array);
  const what = JSON.stringify(given);
  for (let x = 0; x < batch; x++) {
    for (let i = 0; i < m; i++) {
      const row = (x * m + i) * rowStride;
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let p = 0; p < k; p++) sum += a.at(x, i, p) * b.at(x, p, j);
        const wanted = alpha * sum + (given.bias ? bias[j]! : 0) + (given.accumulate ? before[row + j]! : 0);
        const rounding = out === "float16" ? 1e-3 * Math.abs(wanted) + 1e-3 : 1e-6 * (1 + Math.abs(wanted));
        const error = Math.abs(got[row + j]! - wanted);
        if (!(error <= rounding + 2e-7 * k * Math.max(1, Math.abs(alpha)))) {
          expect.unreachable(`${what}: element ${x}, ${i}, ${j} is ${got[row + j]}, wanted ${wanted}`);
        }
      }
      for (let j = n; j < rowStride; j++)
        expect(got[row + j], `${what}: after row ${i}`).toEqual(before[row + j]!);
    }
  }
  return got;
}

/** Whether the adapter is a CPU: compilers take seconds for each large kernel there, so large tiles are left to GPUs. */
function slow(backend: WebgpuBackend): boolean {
  return backend.device.adapterInfo.isFallbackAdapter;
}

const CASES: readonly Case[] = [
  { m: 33, n: 47, k: 29 },
  { m: 24, n: 40, k: 40, order: "nt", offset: 8, bias: true, alpha: -0.5 },
  { m: 9, n: 12, k: 16, order: "tt", offset: 3, pad: 5, batch: 2 },
  { m: 20, n: 24, k: 1100, order: "tn", bias: true, accumulate: true },
];
const LARGE_CASES: readonly Case[] = [
  { m: 72, n: 80, k: 37, order: "tn", pad: 8, accumulate: true },
  { m: 132, n: 136, k: 24 },
  { m: 131, n: 260, k: 1030, order: "nt", offset: 1, bias: true },
  { m: 300, n: 140, k: 2000, order: "tn", batch: 2, alpha: 2 },
];

for (const kernels of ["plain", "tiled"]) {
  const title = `${kernels} products of every layout equal the oracle and stay within their rows`;
  testGpu(title, { kernels }, async (backend) => {
    for (const given of slow(backend) ? CASES : [...CASES, ...LARGE_CASES]) await run(backend, given);
  });
}

testGpu(
  "a deep product that is split is bitwise the same every time",
  { kernels: "tiled" },
  async (backend) => {
    const deep = CASES.at(-1)!;
    expect(await run(backend, deep)).toEqual(await run(backend, deep));
  },
);

testGpu(
  "products of operands larger than a binding are computed in parts",
  { "binding-limit": "8192" },
  async (backend) => {
    await run(backend, { m: 90, n: 40, k: 24, bias: true });
    await run(backend, { m: 24, n: 120, k: 40, order: "nt", bias: true });
    await run(backend, { m: 20, n: 24, k: 300, order: "tn", accumulate: true });
    await run(backend, { m: 24, n: 24, k: 24, batch: 5 });
  },
);

for (const settings of [{ kernels: "tiled" }, { kernels: "tiled", matrix: "off" }, { kernels: "plain" }]) {
  const title = `float16 operands are added up in float32: ${JSON.stringify(settings)}`;
  testGpu(title, settings, async (backend) => {
    if (!backend.capabilities.computeDTypes.includes("float16")) return;
    await run(backend, { m: 24, n: 28, k: 36, dtype: "float16", out: "float32", bias: true });
    await run(backend, { m: 24, n: 28, k: 36, pad: 3, dtype: "float16" });
    if (slow(backend)) return;
    for (const out of ["float16", "float32"] as const) {
      await run(backend, { m: 40, n: 48, k: 72, dtype: "float16", out, bias: true });
      await run(backend, {
        m: 72,
        n: 88,
        k: 2050,
        order: "nt",
        dtype: "float16",
        out,
        offset: 8,
        pad: 6,
        alpha: 0.25,
      });
      await run(backend, { m: 129, n: 65, k: 33, order: "tn", dtype: "float16", out, offset: 1, pad: 3 });
      await run(backend, { m: 200, n: 136, k: 1600, dtype: "float16", out, batch: 2 });
    }
    await run(backend, { m: 136, n: 72, k: 70, pad: 2, dtype: "float16", out: "float32", accumulate: true });
  });
}

testGpu("products that cannot be are refused by name", {}, async (backend) => {
  const span = put(backend, "float32", new Float32Array(64), 0);
  const matrix = (change: Partial<MatrixOperand> = {}): MatrixOperand => ({
    ...{ span, rowStride: 4, batchStride: 0, transposed: false, ...change },
  });
  const call = (change: Partial<MatmulArgs>) => () =>
    backend.kernels.matmul({
      a: matrix(),
      b: matrix(),
      out: matrix(),
      batch: 1,
      m: 4,
      n: 4,
      k: 4,
      ...change,
    });
  expect(call({ out: matrix({ transposed: true }) })).toThrow("the result is transposed");
  expect(call({ a: matrix({ rowStride: 3 }) })).toThrow("matmul a: rows of 4 elements lie 3 apart");
  expect(call({ m: 20 })).toThrow("matmul a: a span of 64 elements was given, 80 are needed");
  expect(call({ a: matrix({ span: { ...span, dtype: "float64", length: 32 } }) })).toThrow("float64");
});

test("splits are none where workgroups suffice, and never thinner than pays", () => {
  const second = 1e-7;
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 600 }),
      fc.integer({ min: 0, max: 20_000 }),
      fc.integer({ min: 1, max: 1e7 }),
      (tiles, depth, elements) => {
        const splits = splitsOf(tiles, depth, elements, second);
        expect(splits).toBeGreaterThanOrEqual(1);
        if (splits > 1) expect(depth / splits).toBeGreaterThanOrEqual(256);
        if (tiles >= 264) expect(splits).toBe(1);
      },
    ),
    { seed: 7, numRuns: 300 },
  );
  expect(splitsOf(36, 8192, 768 * 768, second)).toBeGreaterThan(3);
});

/**
 * Matrix products that end with an activation: what is stored before it equals the product without one to the bit, and
 * what comes out equals the activation kernel's, in every kernel, split and part.
 */
import { expect, setDefaultTimeout } from "bun:test";
import type { WebgpuBackend } from "../../../backends/webgpu/backend.ts";
import type { Span } from "../../../core/contracts/backend.ts";
import { DTYPES } from "../../../core/contracts/dtype.ts";
import type { MatmulActivation, MatmulArgs } from "../../../core/contracts/kernels.ts";
import { randomUniform, streamKey } from "../../../core/tensor/random.ts";
import { numbers, testGpu } from "./gpu.ts";

// Software adapters compile kernels slowly.
setDefaultTimeout(120_000);

type Float = "float32" | "float16";

interface Case {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly batch?: number;
  readonly activation: MatmulActivation;
  readonly transposed?: boolean;
  readonly dtype?: Float;
  readonly bias?: boolean;
}

async function check(backend: WebgpuBackend, given: Case): Promise<void> {
  const { m, n, k, batch = 1, activation, transposed = false, dtype = "float32" } = given;
  const { kernels } = backend;
  const buffers: Span["buffer"][] = [];
  const out = (length: number): Span => {
    const buffer = backend.allocate(length * DTYPES[dtype].bytes, "activation");
    buffers.push(buffer);
    return { buffer, dtype, offset: 0, length };
  };
  const put = (stream: number, length: number): Span => {
    const uniform = new Float64Array(length);
    randomUniform(streamKey(6, "activation", stream), 0, uniform);
    const values = uniform.map((u) => 2 * u - 1);
    const span = out(length);
    backend.write(span, dtype === "float16" ? new Float16Array(values) : new Float32Array(values));
    return span;
  };
  const [a, b, bias] = [put(1, batch * m * k), put(2, batch * k * n), put(3, n)];
  const product = (target: Span): MatmulArgs => ({
    a: { span: a, rowStride: transposed ? m : k, batchStride: m * k, transposed },
    b: { span: b, rowStride: transposed ? n : k, batchStride: k * n, transposed: !transposed },
    out: { span: target, rowStride: n, batchStride: m * n, transposed: false },
    ...{ batch, m, n, k, ...(given.bias ? { bias } : {}) },
  });
  const [bare, twin, fused, alone, before] = Array.from({ length: 5 }, () => out(batch * m * n)) as [
    ...[Span, Span, Span, Span, Span],
  ];
  kernels.matmul(product(bare));
  kernels.unary(activation, bare, twin);
  kernels.matmul({ ...product(fused), activation, preactivation: before });
  kernels.matmul({ ...product(alone), activation });
  const what = JSON.stringify(given);
  expect(await numbers(backend, before), what).toEqual(await numbers(backend, bare));
  expect(await numbers(backend, alone), what).toEqual(await numbers(backend, fused));
  const [wanted, got] = [await numbers(backend, twin), await numbers(backend, fused)];
  // The twin's activation sees the product rounded to its dtype.
  const tolerance = dtype === "float16" ? 3e-3 : 2e-6;
  for (const [i, value] of wanted.entries()) {
    const close = Math.abs(got[i]! - value) <= tolerance * (1 + Math.abs(value));
    if (!close) expect.unreachable(`${what}: element ${i} is ${got[i]}, wanted ${value}`);
  }
  for (const buffer of buffers) backend.release(buffer);
}

const CASES: readonly Case[] = [
  { m: 20, n: 24, k: 1100, transposed: true, activation: "relu", bias: true },
  { m: 24, n: 40, k: 40, batch: 2, activation: "silu" },
  { m: 33, n: 47, k: 29, activation: "geluTanh", bias: true },
  { m: 24, n: 40, k: 40, activation: "gelu", dtype: "float16", bias: true },
];

for (const kernels of ["plain", "tiled"]) {
  const title = `${kernels} products end with an activation as with a kernel of its own`;
  testGpu(title, { kernels }, async (backend) => {
    // Adapters that are a CPU take seconds to compile each tiled kernel.
    const slow = kernels === "tiled" && backend.device.adapterInfo.isFallbackAdapter;
    for (const given of slow ? CASES.slice(0, 2) : CASES) {
      if (backend.capabilities.computeDTypes.includes(given.dtype ?? "float32")) await check(backend, given);
    }
  });
}

testGpu(
  "products in parts are activated once each is whole",
  { "binding-limit": "8192" },
  async (backend) => {
    await check(backend, { m: 90, n: 40, k: 24, activation: "geluTanh", bias: true });
    await check(backend, { m: 24, n: 120, k: 40, activation: "geluTanh", bias: true });
    await check(backend, { m: 20, n: 24, k: 300, transposed: true, activation: "geluTanh", bias: true });
    await check(backend, { m: 24, n: 24, k: 24, batch: 5, activation: "geluTanh" });
  },
);

testGpu("an activation beside accumulate is refused", {}, async (backend) => {
  const buffer = backend.allocate(64, "activation");
  const span: Span = { buffer, dtype: "float32", offset: 0, length: 16 };
  const matrix = { span, rowStride: 4, batchStride: 0, transposed: false };
  const args = { a: matrix, b: matrix, out: matrix, batch: 1, m: 4, n: 4, k: 4 };
  expect(() => backend.kernels.matmul({ ...args, activation: "relu", accumulate: true })).toThrow(
    "relu was given with accumulate",
  );
});

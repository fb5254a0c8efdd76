/**
 * A few kernels on every engine, and a checksum of the random streams: run under another runtime by `deno.test.ts`,
 * which compares what it prints with its own.
 *
 * @module
 */
import { cpuBackend } from "../../../backends/cpu/mod.ts";
import type { Backend, Span } from "../../../core/contracts/backend.ts";
import { DTYPES, type DType } from "../../../core/contracts/dtype.ts";
import { randomNormal, randomWords, streamKey } from "../../../core/tensor/random.ts";

/** What one runtime computes, by name. */
export async function runtimeFacts(): Promise<Record<string, number[]>> {
  const facts: Record<string, number[]> = {};
  const normals = new Float64Array(10_001);
  randomNormal(streamKey(9, "runtime"), 3, normals);
  facts.normals = checksum(new Uint32Array(normals.buffer));
  const words = new Uint32Array(1001);
  randomWords(streamKey(9, "words"), 1, words);
  facts.words = checksum(words);
  for (const matmul of ["plain", "wasm", "blas"]) {
    const backend = await cpuBackend.create({ settings: { matmul } });
    facts[matmul] = kernels(backend);
    await backend.dispose();
  }
  for (const kernels of ["plain", "fast"]) {
    const backend = await cpuBackend.create({ settings: { kernels } });
    facts[`halves ${kernels}`] = halves(backend, normals);
    await backend.dispose();
  }
  return facts;
}

/** Checksums of numbers in 16 bits, doubled there, and in float32 again. */
function halves(backend: Backend, numbers: Float64Array): number[] {
  const { length } = numbers;
  const put = (dtype: DType): Span => {
    const buffer = backend.allocate(length * DTYPES[dtype].bytes, "activation");
    return { buffer, dtype, offset: 0, length };
  };
  const wide = put("float32");
  backend.write(wide, Float32Array.from(numbers));
  return (["float16", "bfloat16"] as const).flatMap((dtype) => {
    const [half, out] = [put(dtype), put("float32")];
    backend.kernels.cast(wide, half);
    backend.kernels.affine(half, half, 2, 0);
    backend.kernels.cast(half, out);
    return checksum(Uint32Array.from(backend.hostView(out) as Float32Array, (value) => value * 2 ** 20));
  });
}

function checksum(words: Uint32Array): number[] {
  let hash = 0;
  for (const word of words) hash = Math.imul(hash ^ word, 0x9e3779b1) >>> 0;
  return [hash];
}

function kernels(backend: Backend): number[] {
  const n = 33;
  const [a, b, out] = [0, 1, 2].map((seed): Span => {
    const values = new Float32Array(n * n);
    randomNormal(streamKey(seed), 0, values);
    const span: Span = {
      buffer: backend.allocate(4 * n * n, "activation"),
      dtype: "float32",
      offset: 0,
      length: n * n,
    };
    backend.write(span, values);
    return span;
  }) as [Span, Span, Span];
  const operand = (span: Span, transposed: boolean) => ({ span, rowStride: n, batchStride: 0, transposed });
  backend.kernels.matmul({
    ...{
      a: operand(a, true),
      b: operand(b, false),
      out: operand(out, false),
      batch: 1,
      m: n,
      n,
      k: n,
      alpha: 0.1,
    },
  });
  backend.kernels.unary("geluTanh", out, out);
  backend.kernels.softmax(out, out, n, n, false);
  return [0, 1, 500, n * n - 1].map((i) => Number(backend.hostView(out)![i]));
}

if (import.meta.main) console.log(JSON.stringify(await runtimeFacts()));

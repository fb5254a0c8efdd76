/**
 * What one runtime computes on the GPU, as bits: run under Deno by a test that compares it with Bun.
 *
 * @module
 */
import process from "node:process";
import { webgpuBackend } from "../../../backends/webgpu/mod.ts";
import type { Span } from "../../../core/contracts/backend.ts";
import { bytesOf, DTYPES, type DType } from "../../../core/contracts/dtype.ts";
import { randomNormal, streamKey } from "../../../core/tensor/random.ts";

/** Results of a few kernels in hexadecimal, by name. */
export async function runtimeFacts(): Promise<Record<string, string>> {
  const backend = await webgpuBackend.create({ settings: { checks: "on" } });
  const { kernels } = backend;
  const span = (dtype: DType, length: number): Span => {
    const buffer = backend.allocate(length * DTYPES[dtype].bytes, "activation");
    return { buffer, dtype, offset: 0, length };
  };
  const hex = async (source: Span): Promise<string> =>
    Array.from(bytesOf(await backend.read(source)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const [x, y, half] = [span("float32", 33 * 7), span("float32", 33 * 7), span("float16", 33 * 7)];
  const values = new Float32Array(x.length);
  randomNormal(streamKey(1, "runtime"), 0, values);
  const facts: Record<string, string> = {};
  backend.write(x, values);
  kernels.unary("geluTanh", x, y);
  facts.gelu = await hex(y);
  kernels.softmax(x, y, 7, 33, false);
  facts.softmax = await hex(y);
  kernels.cast(y, half);
  facts.cast = await hex(half);
  kernels.dropout(x, y, 0.5, { high: 1, low: 2 });
  facts.dropout = await hex(y);
  kernels.normPower(x, { ...y, length: 1 }, 2);
  facts.norm = await hex({ ...y, length: 1 });
  await backend.dispose();
  return facts;
}

if (import.meta.main) {
  console.log(JSON.stringify(await runtimeFacts()));
  process.exit(0);
}

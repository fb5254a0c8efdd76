/**
 * Tests that need a GPU: without an adapter they are skipped with a word on how to get one, and in CI they fail.
 *
 * @module
 */
import { describe, test } from "bun:test";
import { createWebgpuBackend, type WebgpuBackend } from "../../../backends/webgpu/backend.ts";
import type { Backend, Span } from "../../../core/contracts/backend.ts";
import { DTYPES, type DType } from "../../../core/contracts/dtype.ts";

async function whyNoAdapter(): Promise<string | undefined> {
  try {
    await (await createWebgpuBackend({})).dispose();
    return undefined;
  } catch (error) {
    return String(error);
  }
}

const missing = await whyNoAdapter();
if (missing !== undefined && process.env.CI !== undefined) throw new Error(missing);
if (missing !== undefined) process.stderr.write(`WebGPU tests are skipped: ${missing}\n`);

/** A group of tests on a GPU. */
export const describeGpu: typeof describe | typeof describe.skip =
  missing === undefined ? describe : describe.skip;

/** A test that needs a GPU in a process of its own. */
export const testOnGpu: typeof test | typeof test.skip = missing === undefined ? test : test.skip;

/** A test on a GPU of its own, with Dawn's checks on unless the settings say otherwise. */
export function testGpu(
  name: string,
  settings: Readonly<Record<string, string>>,
  body: (backend: WebgpuBackend) => Promise<void>,
): void {
  const run = async (): Promise<void> => {
    const backend = await createWebgpuBackend({ settings: { checks: "on", ...settings } });
    try {
      await body(backend);
    } finally {
      await backend.dispose();
    }
  };
  if (missing === undefined) test(name, run);
  else test.skip(name, run);
}

/** A span over a buffer of its own. */
export function span(backend: Backend, dtype: DType, length: number): Span {
  const buffer = backend.allocate(length * DTYPES[dtype].bytes, "activation");
  return { buffer, dtype, offset: 0, length };
}

/** The elements of a span as numbers. */
export async function numbers(backend: Backend, source: Span): Promise<number[]> {
  return Array.from((await backend.read(source)) as Float32Array, Number);
}

import { expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { CpuMemory, RESERVED_PAGES } from "../../../../backends/cpu/memory.ts";
import { buildKernels } from "../../../../backends/cpu/wasm/build.ts";
import { relaxed, simd } from "../../../../backends/cpu/wasm/kernels.generated.ts";
import { loadKernels } from "../../../../backends/cpu/wasm/load.ts";

test("the committed WebAssembly is what its sources give", async () => {
  const committed = new URL("../../../../backends/cpu/wasm/kernels.generated.ts", import.meta.url);
  expect((await buildKernels()) === (await readFile(committed, "utf8"))).toBe(true);
}, 60_000);

test("both variants load, stay in their part of memory and multiply alike", async () => {
  const results: number[] = [];
  for (const code of [relaxed, simd]) {
    const memory = new CpuMemory(undefined);
    const kernels = await loadKernels({ name: code.slice(0, 40) + code.length, bytes: decode(code) }, memory);
    expect(kernels.staticEnd()).toBeLessThanOrEqual(RESERVED_PAGES * 65536);
    const at = memory.scratch(3 * 4 * 400);
    const data = memory.float32();
    for (let i = 0; i < 800; i++) data[at / 4 + i] = Math.sin(i);
    kernels.sgemm(20, 20, 20, 1, at, 20, 0, at + 1600, 20, 1, at + 3200, 20, 0);
    results.push(data[at / 4 + 800 + 21]!);
    memory.dispose();
  }
  expect(Math.abs(results[0]! - results[1]!)).toBeLessThan(1e-5);
  expect(results[0]).not.toBe(0);
});

function decode(code: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(code), (c) => c.charCodeAt(0));
}

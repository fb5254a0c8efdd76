import { setDefaultTimeout } from "bun:test";
import { createCpuBackend } from "../../../backends/cpu/backend.ts";
import { cpuBackend } from "../../../backends/cpu/mod.ts";
import { kernelConformance } from "./suite.ts";

setDefaultTimeout(30_000);

for (const { settings, halves } of [
  { settings: { matmul: "plain", kernels: "plain" }, halves: ["float16", "bfloat16"] as const },
  { settings: { matmul: "wasm", kernels: "fast" }, halves: ["float16", "bfloat16"] as const },
  { settings: { matmul: "blas", kernels: "fast" }, halves: [] },
]) {
  const name = `cpu with matmul ${settings.matmul}, kernels ${settings.kernels}`;
  kernelConformance(name, () => cpuBackend.create({ settings }), {
    dtypes: ["float32", "float64", ...halves],
  });
}

// Tiles of a few elements: every 16-bit kernel goes through several, with seams at odd places.
kernelConformance(
  "cpu with small tiles of 16-bit floats",
  () => createCpuBackend({}, { tile: 64, block: 16, band: 64, bandColumns: 3 }),
  { dtypes: ["float16", "bfloat16"], storage: ["float32", "float16", "bfloat16"] },
);

import { cpuBackend } from "../../../backends/cpu/mod.ts";
import { kernelConformance } from "./suite.ts";

for (const settings of [
  { matmul: "plain", kernels: "plain" },
  { matmul: "wasm", kernels: "fast" },
  { matmul: "blas", kernels: "fast" },
]) {
  const name = `cpu with matmul ${settings.matmul}, kernels ${settings.kernels}`;
  kernelConformance(name, () => cpuBackend.create({ settings }), { dtypes: ["float32", "float64"] });
}

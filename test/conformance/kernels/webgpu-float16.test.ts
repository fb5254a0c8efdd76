/** Kernels of a GPU in float16 against the oracle that the CPU's meet: float32 inside, one rounding at the end. */
import { setDefaultTimeout } from "bun:test";
import { webgpuBackend } from "../../../backends/webgpu/mod.ts";
import { describeGpu } from "../../backends/webgpu/gpu.ts";
import { kernelConformance } from "./suite.ts";

// Software adapters compile kernels slowly.
setDefaultTimeout(60_000);

describeGpu("float16", () => {
  kernelConformance("webgpu with checks", () => webgpuBackend.create({ settings: { checks: "on" } }), {
    dtypes: ["float16"],
    storage: ["float16"],
  });
});

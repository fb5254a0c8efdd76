import { webgpuBackend } from "../../../backends/webgpu/mod.ts";
import { describeGpu } from "../../backends/webgpu/gpu.ts";
import { trainingConformance } from "./suite.ts";

for (const checks of ["on", "off"]) {
  describeGpu(`Dawn's checks ${checks}`, () => {
    trainingConformance("WebGPU", (options) => webgpuBackend.create({ ...options, settings: { checks } }));
  });
}

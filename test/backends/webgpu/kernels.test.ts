import { setDefaultTimeout } from "bun:test";
import { webgpuBackend } from "../../../backends/webgpu/mod.ts";
import { DTYPES, type DType } from "../../../core/contracts/dtype.ts";
import { kernelConformance } from "../../conformance/kernels/suite.ts";
import { describeGpu } from "./gpu.ts";

// Software adapters compile kernels slowly.
setDefaultTimeout(60_000);

// float64 is stored, but not converted.
const storage = (Object.keys(DTYPES) as DType[]).filter((dtype) => dtype !== "float64");

describeGpu("conformance", () => {
  for (const { name, settings, guard } of [
    { name: "webgpu with checks", settings: { checks: "on" }, guard: 3 },
    { name: "webgpu without checks, spans aligned", settings: { checks: "off" }, guard: 4 },
    {
      name: "webgpu without subgroups and immediates, in small bindings",
      settings: { checks: "on", subgroups: "off", immediates: "off", "binding-limit": "65536" },
      guard: 4,
    },
  ]) {
    kernelConformance(name, () => webgpuBackend.create({ settings }), { storage, guard });
  }
});

import { localTransport } from "../../../backends/collectives/local/transport.ts";
import { describeGpu } from "../../backends/webgpu/gpu.ts";
import { fsdp2Conformance } from "./suite.ts";

const module = new URL("../../../backends/webgpu/mod.ts", import.meta.url).href;

describeGpu("on a GPU", () => {
  fsdp2Conformance("WebGPU", localTransport, {
    backend: { module, export: "webgpuBackend", settings: { checks: "on" } },
    worlds: [1, 2],
    thorough: false,
    timeout: 120_000,
  });
});

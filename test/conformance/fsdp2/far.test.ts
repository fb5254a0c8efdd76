import { localTransport } from "../../../backends/collectives/local/transport.ts";
import { fsdp2Conformance } from "./suite.ts";

const module = new URL("../../../backends/cpu/mod.ts", import.meta.url).href;

fsdp2Conformance("a device whose memory the host does not see", localTransport, {
  backend: { module, export: "cpuBackend", settings: { matmul: "plain" }, far: true },
  precisions: ["bfloat16", "float16"],
  worlds: [2, 4],
});

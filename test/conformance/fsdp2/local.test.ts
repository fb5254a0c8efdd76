import { localTransport } from "../../../backends/collectives/local/transport.ts";
import { fsdp2Conformance } from "./suite.ts";

const module = new URL("../../../backends/cpu/mod.ts", import.meta.url).href;

fsdp2Conformance("the CPU, all ranks in one loop", localTransport, {
  backend: { module, export: "cpuBackend", settings: { matmul: "plain" } },
  exact: true,
  precisions: ["bfloat16", "float16"],
  largeWorlds: [8],
  hugeWorld: 128,
});

import { threadsTransport } from "../../../backends/collectives/threads/transport.ts";
import { fsdp2Conformance } from "./suite.ts";

const module = new URL("../../../backends/cpu/mod.ts", import.meta.url).href;

fsdp2Conformance("the CPU, every rank a thread", threadsTransport, {
  backend: { module, export: "cpuBackend", settings: { matmul: "plain" } },
  exact: true,
  precisions: ["bfloat16", "float16"],
  worlds: [2],
  largeWorlds: [4],
});

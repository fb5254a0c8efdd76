import { cpuBackend } from "../../../backends/cpu/mod.ts";
import { trainingConformance } from "./suite.ts";

trainingConformance("the CPU", (options) => cpuBackend.create(options));
trainingConformance("the CPU in WebAssembly", (options) =>
  cpuBackend.create({ ...options, settings: { matmul: "wasm" } }),
);

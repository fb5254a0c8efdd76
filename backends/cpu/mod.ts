/**
 * The CPU backend as a plugin.
 *
 * @module
 */
import {
  BACKEND,
  type BackendFactory,
  type BackendOptions,
  type Plugin,
} from "../../core/contracts/plugin.ts";
import { createCpuBackend } from "./backend.ts";
import { probeCpu } from "./probe.ts";

/** Makes CPU devices. Settings: `matmul` (auto, blas, wasm, plain) and `kernels` (fast, plain). */
export const cpuBackend: BackendFactory = Object.freeze({
  create: (options: BackendOptions) => createCpuBackend(options),
  probe: probeCpu,
});

/** Registers the backend as `"cpu"`. */
export const cpuPlugin: Plugin = Object.freeze<Plugin>({
  name: "cpu",
  setup: (registry) => registry.register(BACKEND, "cpu", cpuBackend),
});

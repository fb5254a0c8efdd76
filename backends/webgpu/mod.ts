/**
 * The WebGPU backend as a plugin.
 *
 * @module
 */
import { BACKEND, type BackendFactory, type Plugin } from "../../core/contracts/plugin.ts";
import { createWebgpuBackend } from "./backend.ts";
import { probeWebgpu } from "./probe.ts";

/**
 * Opens GPUs. Settings: `provider` (dawn, runtime), `adapter` (index or PCI address), `checks`, `f16`, `subgroups`,
 * `matrix`, `immediates`, `profile` (on, off), `kernels` (auto, tiled, plain), `power` (high-performance, low-power), `memory-limit` and `binding-limit`
 * (bytes).
 */
export const webgpuBackend: BackendFactory = Object.freeze({
  create: createWebgpuBackend,
  probe: probeWebgpu,
});

/** Registers the backend as `"webgpu"`. */
export const webgpuPlugin: Plugin = Object.freeze<Plugin>({
  name: "webgpu",
  setup: (registry) => registry.register(BACKEND, "webgpu", webgpuBackend),
});

/**
 * The GPU entry point: npm `webgpu` (Dawn), loaded when it is first asked for, or the runtime's `navigator.gpu`.
 *
 * What `create()` returns must outlive every device made from it: collected early it crashes the process, so every
 * instance is kept for the life of the module.
 *
 * @module
 */
import { DeviceError } from "../../core/contracts/errors.ts";
import { keepThread } from "../../core/runtime/runtime.ts";

/** Where the GPU comes from. */
export type Provider = "dawn" | "runtime";

/** How Dawn runs. */
export interface InstanceOptions {
  readonly provider: Provider;
  /** Validate commands and check bounds. */
  readonly checks: boolean;
  /** Give timestamps as precise as they are. */
  readonly profile: boolean;
}

const instances = new Map<string, GPU>();

/** Dawn's flags for our kernels: what NVIDIA's f16 and tensor cores need, and its checks off unless asked for. */
function flagsFor({ checks, profile }: InstanceOptions): string[] {
  const enabled = ["allow_unsafe_apis", "vulkan_enable_f16_on_nvidia"];
  if (!checks) enabled.push("disable_robustness", "disable_workgroup_init", "skip_validation");
  const flags = [`enable-dawn-features=${enabled.join(",")}`];
  return profile ? [...flags, "disable-dawn-features=timestamp_quantization"] : flags;
}

/**
 * The entry point for a provider.
 *
 * @param selector tells instances apart whose environment chose different adapters.
 * @throws DeviceError when it is missing, with how to get it.
 */
export async function openInstance(options: InstanceOptions, selector = ""): Promise<GPU> {
  if (options.provider === "runtime") return runtimeInstance();
  keepThread();
  const flags = flagsFor(options);
  const key = [selector, ...flags].join(" ");
  const { create } = await loadDawn();
  // Nothing may be awaited between the look and the entry: a second instance would drive out, and so free, the first.
  const gpu = instances.get(key) ?? create(flags);
  instances.set(key, gpu);
  return gpu;
}

async function loadDawn(): Promise<typeof import("webgpu")> {
  try {
    return await import("webgpu");
  } catch (cause) {
    throw new DeviceError(
      "webgpu: the npm package webgpu (Dawn) did not load, install it (bun add webgpu@0.6.2) or set provider=runtime where the runtime has navigator.gpu",
      { cause },
    );
  }
}

function runtimeInstance(): GPU {
  const { gpu } = globalThis.navigator ?? {};
  if (gpu !== undefined) return gpu;
  throw new DeviceError(
    "webgpu: provider=runtime was given, but this runtime has no navigator.gpu, allowed: provider=dawn",
  );
}

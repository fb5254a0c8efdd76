/**
 * The GPU entry point: npm `webgpu` (Dawn), loaded when it is first asked for, or the runtime's `navigator.gpu`.
 *
 * What `create()` returns must outlive every device made from it: collected early it crashes the process, so every
 * instance is kept for the life of the module.
 *
 * @module
 */
import { DeviceError } from "../../core/contracts/errors.ts";

/** Where the GPU comes from. */
export type Provider = "dawn" | "runtime";

const instances = new Map<string, GPU>();

/** Dawn's toggles for our kernels: what NVIDIA's f16 and tensor cores need, and its checks off when asked. */
function togglesFor(checks: boolean): readonly string[] {
  const always = ["allow_unsafe_apis", "vulkan_enable_f16_on_nvidia"];
  return checks ? always : [...always, "disable_robustness", "disable_workgroup_init", "skip_validation"];
}

/**
 * The entry point for a provider.
 *
 * @param selector tells instances apart whose environment chose different adapters.
 * @throws DeviceError when it is missing, with how to get it.
 */
export async function openInstance(provider: Provider, checks: boolean, selector = ""): Promise<GPU> {
  const key = `${provider} ${checks} ${selector}`;
  const known = instances.get(key);
  if (known !== undefined) return known;
  const gpu = provider === "dawn" ? await createDawn(checks) : runtimeInstance();
  instances.set(key, gpu);
  return gpu;
}

async function createDawn(checks: boolean): Promise<GPU> {
  let module: typeof import("webgpu");
  try {
    module = await import("webgpu");
  } catch (cause) {
    throw new DeviceError(
      "webgpu: the npm package webgpu (Dawn) did not load, install it (bun add webgpu@0.6.2) or set provider=runtime where the runtime has navigator.gpu",
      { cause },
    );
  }
  return module.create([`enable-dawn-features=${togglesFor(checks).join(",")}`]);
}

function runtimeInstance(): GPU {
  const { gpu } = globalThis.navigator ?? {};
  if (gpu !== undefined) return gpu;
  throw new DeviceError(
    "webgpu: provider=runtime was given, but this runtime has no navigator.gpu, allowed: provider=dawn",
  );
}

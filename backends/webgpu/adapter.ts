/**
 * Which GPU: by index or PCI address, also among GPUs of one name, which WebGPU itself cannot tell apart.
 *
 * On Linux Mesa's device-select layer for Vulkan decides which device a process sees first. It reads libc's environment
 * when an adapter is asked for; `process.env` alone does not reach it, so `setenv` is called through koffi. Elsewhere,
 * and without the layer, there is one adapter: the one that the power preference gives.
 *
 * @module
 */
import process from "node:process";
import { DeviceError } from "../../core/contracts/errors.ts";
import type { BackendOptions } from "../../core/contracts/plugin.ts";
import { exclusively } from "./adapter-lock.ts";
import { openInstance } from "./instance.ts";
import { findSelector, listGpus } from "./pci.ts";
import type { WebgpuSettings } from "./settings.ts";

/** An adapter, ready to give a device. */
export interface OpenAdapter {
  readonly gpu: GPU;
  readonly adapter: GPUAdapter;
  /** One line for people. */
  readonly description: string;
}

/**
 * Opens the adapter that the settings name, or this rank's share of those there are.
 *
 * @throws DeviceError when there is none, no such one, or they cannot be told apart.
 */
export async function openAdapter(settings: WebgpuSettings, options: BackendOptions): Promise<OpenAdapter> {
  const gpus = settings.provider === "dawn" ? listGpus() : [];
  if (gpus.length <= 1) {
    requireOnly(settings.adapter, gpus);
    return request(settings, "");
  }
  const selector = await findSelector();
  const there = gpus.map((gpu, i) => `${i} (${gpu})`).join(", ");
  if (typeof selector !== "function") {
    if (settings.adapter === undefined) {
      const warning = sharingWarning(gpus, selector.missing, options);
      if (warning !== undefined) process.stderr.write(`warning: ${warning}\n`);
      return request(settings, "");
    }
    throw new DeviceError(
      `webgpu: adapter ${settings.adapter} was asked for, but the adapters ${there} cannot be told apart: ${selector.missing}; or run one process per GPU that sees only its own`,
    );
  }
  const address = chooseAddress(settings.adapter, gpus, options);
  if (address === undefined) {
    throw new DeviceError(`webgpu: adapter ${settings.adapter} was asked for, allowed: ${there}`);
  }
  // The environment belongs to the whole process, and ranks may be its threads.
  return exclusively(async () => {
    selector(address);
    return request(settings, address);
  });
}

/** What the first rank of a machine tells when several there get one GPU, though there are more. */
export function sharingWarning(
  gpus: readonly string[],
  missing: string,
  { rank = 0, localWorldSize = 1 }: BackendOptions,
): string | undefined {
  if (gpus.length <= 1 || localWorldSize === 1 || rank % localWorldSize !== 0) return undefined;
  return `webgpu: ${localWorldSize} ranks share one of ${gpus.length} GPUs (${gpus.join(", ")}), which cannot be told apart: ${missing}`;
}

/** @throws DeviceError when another adapter is asked for than the only one. */
function requireOnly(wanted: WebgpuSettings["adapter"], gpus: readonly string[]): void {
  if (wanted === undefined || wanted === 0 || wanted === gpus[0]) return;
  const only = gpus[0] === undefined ? "0" : `0 (${gpus[0]})`;
  throw new DeviceError(`webgpu: adapter ${wanted} was asked for, allowed: ${only}, there is one adapter`);
}

/** The wanted GPU, or this rank's in turn; `undefined` when there is no such one. */
function chooseAddress(
  wanted: WebgpuSettings["adapter"],
  gpus: readonly string[],
  { rank = 0, localWorldSize = 1 }: BackendOptions,
): string | undefined {
  if (wanted === undefined) return gpus[(rank % localWorldSize) % gpus.length];
  return typeof wanted === "number" ? gpus[wanted] : gpus.find((gpu) => gpu === wanted);
}

async function request(settings: WebgpuSettings, address: string): Promise<OpenAdapter> {
  const gpu = await openInstance(settings, address);
  const adapter = await gpu.requestAdapter({ powerPreference: settings.power });
  if (adapter === null) throw new DeviceError(`webgpu: there is no adapter: ${howToGetOne()}`);
  const { vendor, description, device, architecture } = adapter.info;
  const name = description || device || architecture || "unnamed adapter";
  const place = address === "" ? "" : ` at ${address}`;
  const how = settings.provider === "dawn" ? "Dawn" : "navigator.gpu";
  return { gpu, adapter, description: `${vendor} ${name}${place}, through ${how}` };
}

/** What to install where no adapter is found. */
function howToGetOne(): string {
  switch (process.platform) {
    case "darwin":
      return "macOS has one (Metal) unless the process runs without access to the GPU";
    case "win32":
      return "install the GPU's driver: Dawn uses Direct3D 12";
    default:
      return "install a Vulkan driver and loader (Debian: apt install libvulkan1 mesa-vulkan-drivers, which has a software one too, from version 25; NVIDIA: the driver's Vulkan files, and VK_DRIVER_FILES if they lie elsewhere)";
  }
}

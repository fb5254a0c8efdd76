/**
 * Which GPU: by index or PCI address, also among GPUs of one name, which WebGPU itself cannot tell apart.
 *
 * On Linux Mesa's device-select layer for Vulkan decides which device a process sees first. It reads libc's environment
 * when an adapter is asked for; `process.env` alone does not reach it, so `setenv` is called through koffi. Elsewhere,
 * and without the layer, there is one adapter: the one that the power preference gives.
 *
 * @module
 */
import { DeviceError } from "../../core/contracts/errors.ts";
import type { BackendOptions } from "../../core/contracts/plugin.ts";
import { exclusively } from "./adapter-lock.ts";
import { openInstance } from "./instance.ts";
import { canSelect, listGpus, selectGpu } from "./pci.ts";
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
  const address = chooseAddress(settings, options);
  if (address === undefined) return request(settings, "");
  // The environment belongs to the whole process, and ranks may be its threads.
  return exclusively(async () => {
    await selectGpu(address);
    return request(settings, address);
  });
}

/** The PCI address to open; `undefined` when there is nothing to choose. */
function chooseAddress(settings: WebgpuSettings, options: BackendOptions): string | undefined {
  const wanted = settings.adapter;
  const gpus = settings.provider === "dawn" ? listGpus() : [];
  const selectable = gpus.length > 1 && canSelect();
  const there = gpus.map((gpu, i) => `${i} (${gpu})`).join(", ");
  if (wanted === undefined) {
    if (!selectable) return undefined;
    const localRank = (options.rank ?? 0) % (options.localWorldSize ?? 1);
    return gpus[localRank % gpus.length];
  }
  if (gpus.length <= 1) {
    if (wanted === 0 || wanted === gpus[0]) return undefined;
    throw new DeviceError(`webgpu: adapter ${wanted} was asked for, allowed: 0, there is one adapter`);
  }
  const address = typeof wanted === "number" ? gpus[wanted] : gpus.find((gpu) => gpu === wanted);
  if (address === undefined) {
    throw new DeviceError(`webgpu: adapter ${wanted} was asked for, allowed: ${there}`);
  }
  if (selectable) return address;
  throw new DeviceError(
    `webgpu: adapter ${wanted} was asked for, but the adapters ${there} cannot be told apart: install Mesa's device-select layer (Debian: apt install mesa-vulkan-drivers) and the npm package koffi, or run one process per GPU that sees only its own`,
  );
}

async function request(settings: WebgpuSettings, address: string): Promise<OpenAdapter> {
  const gpu = await openInstance(settings.provider, settings.checks, address);
  const adapter = await gpu.requestAdapter({ powerPreference: settings.power });
  if (adapter === null) throw new DeviceError(`webgpu: there is no adapter: ${howToGetOne()}`);
  const { vendor, description, device, architecture } = adapter.info;
  const name = description || device || architecture || "unnamed adapter";
  const place = address === "" ? "" : ` at ${address}`;
  const how = settings.provider === "dawn" ? "Dawn" : "navigator.gpu";
  return { gpu, adapter, description: `${vendor} ${name}${place}, through ${how}` };
}

/** What to install where no adapter is found. */
export function howToGetOne(): string {
  switch (process.platform) {
    case "darwin":
      return "macOS has one (Metal) unless the process runs without access to the GPU";
    case "win32":
      return "install the GPU's driver: Dawn uses Direct3D 12";
    default:
      return "install a Vulkan driver and loader (Debian: apt install libvulkan1 mesa-vulkan-drivers, which has a software one too, from version 25; NVIDIA: the driver's Vulkan files, and VK_DRIVER_FILES if they lie elsewhere)";
  }
}

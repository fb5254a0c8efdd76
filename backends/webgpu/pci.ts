/**
 * The GPUs of a Linux machine by PCI address, and how to make one of them come first.
 *
 * @module
 */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import process from "node:process";

const PCI = "/sys/bus/pci/devices";
const NVIDIA = "/proc/driver/nvidia/gpus";

/** Where Vulkan looks for layers that are always on. */
const LAYER_PLACES = ["/usr/share", "/usr/local/share", "/etc"];
const LAYER = "vulkan/implicit_layer.d/VkLayer_MESA_device_select.json";

/** Addresses of the GPUs that this process may open, in order; empty where there is no such list. */
export function listGpus(): readonly string[] {
  if (process.platform !== "linux") return [];
  return entries(PCI).filter(isOpenGpu).toSorted();
}

/** Makes the GPU at an address the one that Vulkan lists first, in this process, until another is selected. */
export type Selector = (address: string) => void;

/** What chooses one of several GPUs, or why nothing can. */
export async function findSelector(): Promise<Selector | { readonly missing: string }> {
  if (!LAYER_PLACES.some((place) => existsSync(`${place}/${LAYER}`))) {
    return {
      missing: "Mesa's device-select layer is not installed (Debian: apt install mesa-vulkan-drivers)",
    };
  }
  try {
    const { default: koffi } = await import("koffi");
    // The symbols of the process itself: its libc, whatever that is called.
    const setenv = koffi.load(null).func("int setenv(const char *name, const char *value, int overwrite)");
    return (address) => {
      setenv("DRI_PRIME", `pci-${address.replace(/[:.]/g, "_")}`, 1);
      setenv("MESA_VK_DEVICE_SELECT_FORCE_DEFAULT_DEVICE", "1", 1);
    };
  } catch (cause) {
    return { missing: `the package koffi did not load (${cause instanceof Error ? cause.message : cause})` };
  }
}

/** Display and 3-D controllers have class 03; those of other containers have no device file here. */
function isOpenGpu(address: string): boolean {
  if (!text(`${PCI}/${address}/class`).startsWith("0x03")) return false;
  const nodes = entries(`${PCI}/${address}/drm`).filter((name) => name.startsWith("renderD"));
  if (nodes.some((name) => existsSync(`/dev/dri/${name}`))) return true;
  const minor = /Device Minor:\s*(\d+)/.exec(text(`${NVIDIA}/${address}/information`));
  return minor !== null && existsSync(`/dev/nvidia${minor[1]}`);
}

function entries(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function text(file: string): string {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    return "";
  }
}

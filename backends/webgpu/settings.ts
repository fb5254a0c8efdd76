/**
 * The WebGPU backend's own settings.
 *
 * @module
 */
import { ConfigError } from "../../core/contracts/errors.ts";

const SWITCH = ["on", "off"] as const;

/** Settings with a fixed choice of values, the default first. */
const CHOICES = {
  /** Dawn from npm, or the runtime's own `navigator.gpu`. */
  provider: ["dawn", "runtime"],
  /** Validation and bounds checks of Dawn: they cost some kernels a factor of four. */
  checks: ["off", "on"],
  /** 16-bit floats, where the adapter has them. */
  f16: SWITCH,
  /** Subgroup operations, where the adapter has them. */
  subgroups: SWITCH,
  /** Subgroup matrices (tensor cores), where the adapter has them. */
  matrix: SWITCH,
  /** Parameters as immediates, where the device has them; a uniform buffer otherwise. */
  immediates: SWITCH,
  /** Which adapter to ask for when there are several. */
  power: ["high-performance", "low-power"],
  /** Counts device time by kernel family; slows down. */
  profile: ["off", "on"],
  /** Matrix products and attention: in tiles of workgroup memory, or plain, which is faster on adapters that are a CPU. */
  kernels: ["auto", "tiled", "plain"],
} as const;

/** Settings that take other values. */
const FREE = ["adapter", "memory-limit", "binding-limit"] as const;

/** Checked settings. */
export interface WebgpuSettings {
  readonly provider: "dawn" | "runtime";
  readonly checks: boolean;
  readonly f16: boolean;
  readonly subgroups: boolean;
  readonly matrix: boolean;
  readonly immediates: boolean;
  readonly power: "high-performance" | "low-power";
  readonly profile: boolean;
  readonly kernels: "auto" | "tiled" | "plain";
  /** Index of an adapter, or its PCI address as `0000:00:07.0`. */
  readonly adapter: number | string | undefined;
  /** Bytes that the backend may allocate on the device. */
  readonly memoryLimit: number;
  /** Bytes of a binding to use at most, below what the device allows. */
  readonly bindingLimit: number;
}

const PCI_ADDRESS = /^(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/i;

/** Checks settings and fills in defaults. @throws ConfigError for unknown names and values, listing what there is. */
export function parseSettings(given: Readonly<Record<string, string>> = {}): WebgpuSettings {
  const names: readonly string[] = [...Object.keys(CHOICES), ...FREE];
  for (const name of Object.keys(given)) {
    if (names.includes(name)) continue;
    throw new ConfigError(`webgpu setting ${name}: unknown, allowed: ${names.join(", ")}`);
  }
  const on = (name: "checks" | "f16" | "subgroups" | "matrix" | "immediates" | "profile"): boolean =>
    choose(name, given[name]) === "on";
  return {
    provider: choose("provider", given.provider),
    checks: on("checks"),
    f16: on("f16"),
    subgroups: on("subgroups"),
    matrix: on("matrix"),
    immediates: on("immediates"),
    power: choose("power", given.power),
    profile: on("profile"),
    kernels: choose("kernels", given.kernels),
    adapter: adapterOf(given.adapter),
    memoryLimit: bytesOf("memory-limit", given["memory-limit"], 1),
    bindingLimit: bytesOf("binding-limit", given["binding-limit"], 4096),
  };
}

function choose<N extends keyof typeof CHOICES>(
  name: N,
  value: string | undefined,
): (typeof CHOICES)[N][number] {
  const allowed: readonly string[] = CHOICES[name];
  if (value === undefined) return CHOICES[name][0];
  if (allowed.includes(value)) return value as (typeof CHOICES)[N][number];
  throw new ConfigError(
    `webgpu setting ${name}: ${JSON.stringify(value)} was given, allowed: ${allowed.join(", ")}`,
  );
}

function adapterOf(value: string | undefined): number | string | undefined {
  if (value === undefined) return undefined;
  if (/^\d{1,3}$/.test(value)) return Number(value);
  if (PCI_ADDRESS.test(value)) return (value.length < 12 ? `0000:${value}` : value).toLowerCase();
  throw new ConfigError(
    `webgpu setting adapter: ${JSON.stringify(value)} was given, allowed: an index from 0, or a PCI address like 0000:00:07.0`,
  );
}

function bytesOf(name: string, value: string | undefined, least: number): number {
  if (value === undefined) return Number.POSITIVE_INFINITY;
  const bytes = Number(value);
  if (/^\d+$/.test(value) && Number.isSafeInteger(bytes) && bytes >= least) return bytes;
  throw new ConfigError(
    `webgpu setting ${name}: ${JSON.stringify(value)} was given, allowed: a number of bytes from ${least}`,
  );
}

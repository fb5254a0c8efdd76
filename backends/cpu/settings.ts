/**
 * The CPU backend's own settings.
 *
 * @module
 */
import { ConfigError } from "../../core/contracts/errors.ts";

/** Settings and their values, the default first. */
const ALLOWED = {
  /** Engine of matrix products; `auto` is the first of blas, wasm, plain that is there. */
  matmul: ["auto", "blas", "wasm", "plain"],
  /** Whether other kernels use WebAssembly where they can, or plain TypeScript throughout. */
  kernels: ["fast", "plain"],
} as const;

/** Checked settings. */
export type CpuSettings = { readonly [name in keyof typeof ALLOWED]: (typeof ALLOWED)[name][number] };

/** Checks settings and fills in defaults. @throws ConfigError for unknown names and values, listing what there is. */
export function parseSettings(given: Readonly<Record<string, string>> = {}): CpuSettings {
  for (const name of Object.keys(given)) {
    if (Object.hasOwn(ALLOWED, name)) continue;
    throw new ConfigError(`cpu setting ${name}: unknown, allowed: ${Object.keys(ALLOWED).join(", ")}`);
  }
  return { matmul: choose("matmul", given.matmul), kernels: choose("kernels", given.kernels) };
}

function choose<N extends keyof CpuSettings>(name: N, value: string | undefined): CpuSettings[N] {
  const allowed: readonly string[] = ALLOWED[name];
  if (value === undefined) return ALLOWED[name][0] as CpuSettings[N];
  if (allowed.includes(value)) return value as CpuSettings[N];
  throw new ConfigError(
    `cpu setting ${name}: ${JSON.stringify(value)} was given, allowed: ${allowed.join(", ")}`,
  );
}

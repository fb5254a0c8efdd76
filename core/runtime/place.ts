/**
 * Where ranks run: how many, on which device, connected how; and the options that say so.
 *
 * @module
 */
import type { OptionSpec, OptionValue } from "../contracts/command.ts";
import { ConfigError } from "../contracts/errors.ts";
import { quoted } from "./names.ts";

/** Where ranks run. Plain data. */
export interface Place {
  /** Registered backend. */
  readonly backend: string;
  readonly backendSettings: Readonly<Record<string, string>>;
  /** Registered collective. */
  readonly collective: string;
  readonly worldSize: number;
}

/** Options that say where ranks run, for every command that starts some. */
export const PLACE_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  backend: { type: "string", default: "cpu", description: "device" },
  "backend-options": {
    type: "string",
    many: true,
    placeholder: "KEY=VALUE",
    description: "settings of the backend, for example matmul=wasm",
  },
  "webgpu-provider": {
    type: "string",
    choices: ["dawn", "runtime"],
    description: "backend webgpu: Dawn (npm webgpu, the default) or the runtime's own navigator.gpu",
  },
  "webgpu-checks": {
    type: "boolean",
    description: "backend webgpu: Dawn's bounds and command checks, off by default",
  },
  collective: { type: "string", default: "threads", description: "how ranks run and exchange data" },
  "world-size": {
    type: "integer",
    min: 1,
    max: 65536,
    default: 1,
    aliases: ["nproc", "num_processes"],
    description: "number of ranks",
  },
};

/** Where ranks run, from values of `PLACE_OPTIONS`. @throws ConfigError for a setting that is not `KEY=VALUE`. */
export function readPlace(options: Readonly<Record<string, OptionValue>>): Place {
  const backend = String(options.backend);
  const settings = keyValues(options["backend-options"], "--backend-options");
  for (const name of ["provider", "checks"]) {
    const value = options[`webgpu-${name}`];
    if (value === undefined) continue;
    if (backend !== "webgpu") {
      throw new ConfigError(
        `cannot use --webgpu-${name}: given with --backend ${backend}, allowed is --backend webgpu`,
      );
    }
    settings[name] = typeof value === "boolean" ? (value ? "on" : "off") : String(value);
  }
  return {
    backend,
    backendSettings: settings,
    collective: String(options.collective),
    worldSize: Number(options["world-size"]),
  };
}

/** `KEY=VALUE` words as a record. @throws ConfigError for a word that is none. */
export function keyValues(words: OptionValue, option: string): Record<string, string> {
  return Object.fromEntries(
    (Array.isArray(words) ? words : []).map((word: string) => {
      const at = word.indexOf("=");
      if (at < 1) throw new ConfigError(`cannot use ${option}: given ${quoted(word)}, allowed is KEY=VALUE`);
      return [word.slice(0, at), word.slice(at + 1)];
    }),
  );
}

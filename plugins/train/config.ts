/**
 * What a training run is told, as plain data: made from the command line in one place, handed to every rank.
 *
 * @module
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { OptionValue } from "../../core/contracts/command.ts";
import { ConfigError } from "../../core/contracts/errors.ts";
import type { Registry } from "../../core/contracts/plugin.ts";
import type { CheckpointPlace } from "../../core/runtime/checkpoint-place.ts";
import { MODEL } from "../../core/runtime/model-family.ts";
import type { Place } from "../../core/runtime/place.ts";
import type { ShardingConfig } from "../../core/runtime/run-config.ts";

/** Values of a command's options by name. */
export type Options = Readonly<Record<string, OptionValue>>;

/** A model to build. */
export interface ModelConfig {
  /** Registered family. */
  readonly family: string;
  /** Its `config.json`. */
  readonly config: unknown;
  /** Safetensors file, or folder of some, with its values; initialisers otherwise. */
  readonly weights?: string | undefined;
}

/** Where training data come from. */
export type DataConfig =
  | { readonly kind: "tokens"; readonly path: string }
  | { readonly kind: "text"; readonly paths: readonly string[] }
  | { readonly kind: "demo" };

/** A training run. */
export interface TrainConfig {
  readonly model: ModelConfig;
  readonly data: DataConfig;
  readonly place: Place;
  readonly fsdp: ShardingConfig;
  /** `"float16"` and `"bfloat16"`: parameters are gathered, computed with and gradients reduced in it. */
  readonly precision?: "float16" | "bfloat16" | undefined;
  readonly steps: number;
  readonly batchSize: number;
  readonly seqLen: number;
  readonly accumulation: number;
  readonly optimizer: {
    readonly kind: string;
    readonly lr: number;
    readonly betas: readonly [number, number];
    readonly eps: number;
    readonly weightDecay: number;
    readonly momentum: number;
  };
  readonly schedule: { readonly kind: string; readonly warmupSteps: number };
  readonly clip?: number | undefined;
  /** Read a step's loss while the next one runs, and report it then. */
  readonly lateLoss: boolean;
  readonly seed: number;
  readonly save?: string | undefined;
  readonly saveEvery?: number | undefined;
  /** Checkpoints are written while training goes on. */
  readonly asyncSave?: boolean | undefined;
  /** Only the newest so many checkpoints stay. */
  readonly keepLast?: number | undefined;
  readonly resume?: CheckpointPlace | undefined;
  readonly export?: string | undefined;
}

/** A string option, when it was given. */
export function text(options: Options, name: string): string | undefined {
  const value = options[name];
  return typeof value === "string" ? value : undefined;
}

/** A number option. @throws ConfigError when it has no value. */
export function number(options: Options, name: string): number {
  const value = options[name];
  if (typeof value !== "number") throw new ConfigError(`cannot run: --${name} is missing`);
  return value;
}

/** An option of many strings; empty when it was not given. */
export function list(options: Options, name: string): readonly string[] {
  const value = options[name];
  return Array.isArray(value) ? value : [];
}

/** The model in a Hugging Face directory. @throws ConfigError when it has no readable `config.json`. */
export async function modelFromDirectory(
  registry: Registry,
  directory: string,
  option: string,
): Promise<ModelConfig> {
  const config = await readJson(join(directory, "config.json"), option);
  return {
    family: familyOf(registry, config, option),
    config,
    weights: directory,
  };
}

/** A model from scratch: a preset's name, a config file, or JSON text. */
export async function modelFromConfig(
  registry: Registry,
  value: string,
  option: string,
): Promise<ModelConfig> {
  for (const family of registry.names(MODEL)) {
    const preset = registry.get(MODEL, family).presets[value];
    if (preset !== undefined) return { family, config: preset };
  }
  if (value.trimStart().startsWith("{")) {
    const config = parseJson(value, option);
    return { family: familyOf(registry, config, option), config };
  }
  if (!value.endsWith(".json")) {
    const presets = registry
      .names(MODEL)
      .flatMap((family) => Object.keys(registry.get(MODEL, family).presets));
    throw new ConfigError(
      `cannot use ${option}: given "${value}", allowed are ${presets.join(", ")}, a .json file or JSON`,
    );
  }
  const config = await readJson(value, option);
  return { family: familyOf(registry, config, option), config };
}

async function readJson(path: string, option: string): Promise<unknown> {
  let content: string;
  try {
    content = await readFile(path, "utf8");
  } catch (error) {
    throw new ConfigError(
      `cannot use ${option}: "${path}" cannot be read (${(error as NodeJS.ErrnoException).code})`,
    );
  }
  return parseJson(content, option);
}

function parseJson(content: string, option: string): unknown {
  try {
    return JSON.parse(content);
  } catch (error) {
    throw new ConfigError(`cannot use ${option}: not valid JSON (${(error as Error).message})`);
  }
}

/** The family by `model_type`; GPT-2 when a config does not say. */
function familyOf(registry: Registry, config: unknown, option: string): string {
  const type = (config as { readonly model_type?: unknown } | null)?.model_type ?? "gpt2";
  if (typeof type === "string" && registry.names(MODEL).includes(type)) return type;
  throw new ConfigError(
    `cannot use ${option}: "model_type" is ${JSON.stringify(type)}, allowed are ${registry.names(MODEL).join(", ")}`,
  );
}

/**
 * Which model: a preset, a Hugging Face `config.json`, or the directory that holds one. Weights are not looked at.
 *
 * @module
 */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { ConfigError } from "../../../core/contracts/errors.ts";
import type { Registry } from "../../../core/contracts/plugin.ts";
import { type CausalLanguageModel, MODEL } from "../../../core/runtime/model-family.ts";
import { quoted, quotedList } from "../../../core/runtime/names.ts";

/** A model to be built, as often as it is needed. */
export interface ModelChoice {
  /** Registered family. */
  readonly family: string;
  /** Its `config.json`, checked by the family. */
  readonly config: unknown;
}

/** Far more than any model's configuration has. */
const MAX_BYTES = 2 ** 20;

const Config = v.pipe(
  v.custom<object>((value) => !Array.isArray(value)),
  v.looseObject({ model_type: v.optional(v.string(), "gpt2") }),
);

/** Finds a model by a preset's name, a path or the JSON itself. @throws ConfigError for what is neither, or no configuration. */
export async function chooseModel(registry: Registry, given: string): Promise<ModelChoice> {
  for (const family of registry.names(MODEL)) {
    const { presets } = registry.get(MODEL, family);
    if (Object.hasOwn(presets, given)) return { family, config: presets[given] };
  }
  const config = v.safeParse(Config, parsed(await configText(registry, given), given));
  if (!config.success) throw refusal(given, "it holds no model configuration");
  const { model_type: family } = config.output;
  if (registry.names(MODEL).includes(family)) return { family, config: config.output };
  throw refusal(given, `its "model_type" is ${quoted(family)}, allowed are ${names(registry)}`);
}

/** Builds it, without memory. @throws ConfigError for a configuration that its family cannot honour. */
export function buildModel(registry: Registry, { family, config }: ModelChoice): CausalLanguageModel {
  return registry.get(MODEL, family).create(config);
}

async function configText(registry: Registry, given: string): Promise<string> {
  if (given.trimStart().startsWith("{")) return given;
  try {
    const path = (await stat(given)).isDirectory() ? join(given, "config.json") : given;
    const { size } = await stat(path);
    if (size > MAX_BYTES) {
      throw refusal(given, `${size} bytes, allowed are ${MAX_BYTES} for a config.json`);
    }
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    const presets = registry
      .names(MODEL)
      .flatMap((family) => Object.keys(registry.get(MODEL, family).presets));
    throw refusal(
      given,
      `it cannot be read (${code}), allowed are a directory with a config.json, such a file or its text, ${quotedList(presets)}`,
    );
  }
}

function parsed(text: string, given: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw refusal(given, `not valid JSON (${(error as Error).message})`);
  }
}

function names(registry: Registry): string {
  return quotedList(registry.names(MODEL));
}

function refusal(given: string, problem: string): ConfigError {
  const shown = given.length > 100 ? `${given.slice(0, 100)}...` : given;
  return new ConfigError(`cannot use model ${quoted(shown)}: ${problem}`);
}

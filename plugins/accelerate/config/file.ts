/**
 * Config files as `accelerate config` writes them (`commands/config/config_args.py`), and the keys that this project adds:
 * `backend`, `backend_options`, `collective`, `plugins`, `gradient_accumulation_steps`, `parallelism_config`.
 *
 * @module
 */
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import * as v from "valibot";
import { parseDocument } from "yaml";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { closestName, quoted, quotedList } from "../../../core/runtime/names.ts";
import type { Given, GivenOptions } from "./given.ts";
import { OPTION_NAMES, type OptionName, optionOf } from "./options.ts";

/** A config file's content, sorted by who wants it. */
export interface ConfigFile {
  /** Its name, for messages. */
  readonly name: string;
  /** Top-level values by key. */
  readonly values: Readonly<Record<string, unknown>>;
  /** `fsdp_config`, as far as the option table knows its keys. */
  readonly fsdp: GivenOptions;
  /** The rest of `fsdp_config`, which may be options of a version's own. */
  readonly unknownFsdp: Readonly<Record<string, unknown>>;
  /** `parallelism_config`, without the keys' prefix. */
  readonly parallelism: Readonly<Record<string, unknown>>;
  /** Keys that Accelerate has and that mean nothing here. */
  readonly meaningless: readonly string[];
}

/** Keys that mean something here. */
const KEYS: readonly string[] = [
  "backend",
  "backend_options",
  "collective",
  "distributed_type",
  "fsdp_config",
  "gradient_accumulation_steps",
  "main_training_function",
  "mixed_precision",
  "num_machines",
  "num_processes",
  "parallelism_config",
  "plugins",
  "use_cpu",
];
/** Accelerate's other keys. */
const MEANINGLESS: readonly string[] = [
  "command_file",
  "commands",
  "compute_environment",
  "debug",
  "deepspeed_config",
  "downcast_bf16",
  "dynamo_backend",
  "dynamo_config",
  "enable_cpu_affinity",
  "fp8_config",
  "gpu_ids",
  "ipex_config",
  "machine_rank",
  "main_process_ip",
  "main_process_port",
  "megatron_lm_config",
  "mpirun_config",
  "rdzv_backend",
  "rdzv_conf",
  "same_network",
  "tp_config",
  "tpu_env",
  "tpu_name",
  "tpu_use_cluster",
  "tpu_use_sudo",
  "tpu_vm",
  "tpu_zone",
  "use_parallelism_config",
];
/** What `parallelism_config` may say; other kinds of parallelism have keys of their own. */
const PARALLELISM_KEYS: readonly string[] = ["dp_replicate_size", "dp_shard_size"];
const OTHER_PARALLELISM = /^(tp|cp|sp|ep)_/;

const Mapping = v.record(v.string(), v.unknown());

/**
 * Reads a config file, YAML or JSON.
 *
 * @throws ConfigError when it cannot be read, is malformed, or has a key that neither Accelerate nor this project knows.
 */
export async function readConfigFile(path: string): Promise<ConfigFile> {
  const name = basename(path);
  const values = parseMapping(await readText(path), path);
  for (const key of Object.keys(values)) {
    if (!KEYS.includes(key) && !MEANINGLESS.includes(key)) throw unknownKey(key, path, KEYS);
  }
  const fsdp: Partial<Record<OptionName, Given>> = {};
  const unknown: [string, unknown][] = [];
  for (const [key, value] of Object.entries(section(values, "fsdp_config", path))) {
    if (value === null) continue;
    const option = optionByKey(key);
    if (option === undefined) unknown.push([key, value]);
    else fsdp[option] = { value, where: `${key} in ${quoted(name)}` };
  }
  const parallelism = Object.fromEntries(
    Object.entries(section(values, "parallelism_config", path)).map(([key, value]) => [
      key.replace(/^parallelism_config_/, ""),
      value,
    ]),
  );
  for (const key of Object.keys(parallelism)) {
    if (!PARALLELISM_KEYS.includes(key) && !OTHER_PARALLELISM.test(key)) {
      throw unknownKey(key, path, PARALLELISM_KEYS);
    }
  }
  const meaningless = Object.keys(values).filter((key) => MEANINGLESS.includes(key));
  return { name, values, fsdp, unknownFsdp: Object.fromEntries(unknown), parallelism, meaningless };
}

/** The text of a config file. @throws ConfigError when it cannot be read. */
export async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new ConfigError(
      `cannot use --config_file: ${quoted(path)} cannot be read (${(error as NodeJS.ErrnoException).code})`,
    );
  }
}

/** The option that a key of `fsdp_config` means, with or without its prefix. */
export function optionByKey(key: string): OptionName | undefined {
  const whole = key.startsWith("fsdp_") ? key : `fsdp_${key}`;
  return OPTION_NAMES.find((name) => optionOf(name).key === whole || optionOf(name).oldKey === whole);
}

/** The error about a key that nobody knows. */
export function unknownKey(key: string, path: string, known: readonly string[]): ConfigError {
  const closest = closestName(key, known);
  const hint = closest === undefined ? `allowed are ${quotedList(known)}` : `closest is ${quoted(closest)}`;
  return new ConfigError(`unknown key in ${quoted(basename(path))}: given ${quoted(key)}, ${hint}`);
}

function parseMapping(text: string, path: string): Readonly<Record<string, unknown>> {
  // Accelerate reads YAML 1.1, in which a bare `no` is false.
  const document = parseDocument(text, { version: "1.1", prettyErrors: true });
  const [fault] = document.errors;
  if (fault !== undefined) {
    throw new ConfigError(`cannot read ${quoted(path)}: not valid YAML: ${fault.message.split("\n")[0]}`);
  }
  return mapping(toPlain(document, path), `cannot read ${quoted(path)}: it holds`);
}

/** @throws ConfigError also for aliases that would grow without bound. */
function toPlain(document: ReturnType<typeof parseDocument>, path: string): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    throw new ConfigError(`cannot read ${quoted(path)}: ${(error as Error).message}`);
  }
}

function section(values: Readonly<Record<string, unknown>>, key: string, path: string) {
  const value = values[key];
  return value === undefined || value === null
    ? {}
    : mapping(value, `cannot read ${quoted(path)}: ${key} is`);
}

function mapping(value: unknown, failed: string): Readonly<Record<string, unknown>> {
  const parsed = v.safeParse(Mapping, value);
  if (parsed.success && !Array.isArray(value)) return parsed.output;
  const what =
    value === null || value === undefined ? "nothing" : Array.isArray(value) ? "a list" : "a value";
  throw new ConfigError(`${failed} ${what}, allowed are keys with values`);
}

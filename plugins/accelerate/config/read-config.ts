/**
 * A run's configuration, all sources taken together: command line before environment before config file before defaults.
 *
 * @module
 */
import { dirname, resolve } from "node:path";
import process from "node:process";
import * as v from "valibot";
import type { CommandContext } from "../../../core/contracts/command.ts";
import { ConfigError } from "../../../core/contracts/errors.ts";
import type { Registry } from "../../../core/contracts/plugin.ts";
import { loadPlugins, pluginUrl } from "../../../core/runtime/load-plugins.ts";
import { quoted } from "../../../core/runtime/names.ts";
import { keyValues } from "../../../core/runtime/place.ts";
import type { RunConfig, RunConfigReader } from "../../../core/runtime/run-config.ts";
import { SHARDING } from "../../../core/runtime/sharding-version.ts";
import { checkSettings, hasSetting } from "../../../core/runtime/version-settings.ts";
import { COMMAND_OPTIONS } from "./command-options.ts";
import { type ConfigFile, readConfigFile, unknownKey } from "./file.ts";
import {
  type Environment,
  firstGiven,
  type GivenOptions,
  givenByCommandLine,
  givenByEnvironment,
} from "./given.ts";
import { OPTION_NAMES, optionOf } from "./options.ts";
import { replicaGroups } from "./parallelism.ts";
import { placeOf } from "./place.ts";
import { resolveOptions, versionOf } from "./resolve.ts";
import { shardingConfig, versionName } from "./sharding-config.ts";
import { gradientAccumulation, mixedPrecision, TRAINING_OPTIONS } from "./training-options.ts";
import { described } from "./values.ts";

/** A run's configuration, and what of it goes to the ranks of a script. */
export interface ReadConfig extends RunConfig {
  /** What is given, for a `FullyShardedDataParallelPlugin` in a script. */
  readonly given: GivenOptions;
  /** Name of the function that a script exports, when the config file says it. */
  readonly mainFunction: string | undefined;
}

/** Reads Accelerate's config files, its environment variables and its options. */
export const configReader: RunConfigReader = Object.freeze<RunConfigReader>({
  options: COMMAND_OPTIONS,
  trainingOptions: TRAINING_OPTIONS,
  read: (context) => readConfig(context),
});

/** The configuration of a command that has `COMMAND_OPTIONS` and perhaps `TRAINING_OPTIONS`. */
export async function readConfig(
  context: CommandContext,
  env: Environment = process.env,
): Promise<ReadConfig> {
  const { registry, options, given } = context;
  const path = options["config-file"];
  const file = typeof path === "string" ? await readConfigFile(path) : undefined;
  if (file !== undefined) await loadPlugins(registry, pluginUrls(file, dirname(resolve(String(path)))));
  const said = firstGiven(givenByCommandLine(options, given), givenByEnvironment(env), file?.fsdp ?? {});
  const { values, warnings } = resolveOptions(said);
  const settings = versionSettings(registry, context, said, file);
  const place = placeOf(context, file);
  const precision = {
    flag: given.has("mixed-precision") ? options["mixed-precision"] : undefined,
    file: file?.values.mixed_precision,
  };
  const steps = "gradient-accumulation-steps";
  return {
    place,
    sharding: shardingConfig(values, {
      settings,
      replicas: replicaGroups(context, env, file, place.worldSize),
    }),
    mixedPrecision: mixedPrecision(
      [precision.flag, "--mixed-precision"],
      [env.ACCELERATE_MIXED_PRECISION, "ACCELERATE_MIXED_PRECISION"],
      [precision.file, inFile("mixed_precision", file)],
    ),
    accumulation: gradientAccumulation(
      [given.has(steps) ? options[steps] : undefined, `--${steps}`],
      [env.ACCELERATE_GRADIENT_ACCUMULATION_STEPS, "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"],
      [file?.values.gradient_accumulation_steps, inFile("gradient_accumulation_steps", file)],
    ),
    notes: [...warnings.map((warning) => `warning: ${warning}`), ...fileNotes(file)],
    given: said,
    mainFunction:
      typeof file?.values.main_training_function === "string"
        ? file.values.main_training_function
        : undefined,
  };
}

/** A key's place, for messages. */
function inFile(key: string, file: ConfigFile | undefined): string {
  return `${key} in ${quoted(file?.name ?? "")}`;
}

function fileNotes(file: ConfigFile | undefined): readonly string[] {
  if (file === undefined || file.meaningless.length === 0) return [];
  return [`note: these keys of ${quoted(file.name)} mean nothing here: ${file.meaningless.join(", ")}`];
}

function pluginUrls(file: ConfigFile, folder: string): readonly string[] {
  const paths = v.safeParse(v.nullish(v.array(v.string()), []), file.values.plugins);
  if (!paths.success) {
    throw new ConfigError(`cannot use ${inFile("plugins", file)}: allowed is a list of paths`);
  }
  return (paths.output ?? []).map((path) => pluginUrl(path, folder));
}

/** Values of the version's own options, from `--fsdp-options` and the config file. */
function versionSettings(
  registry: Registry,
  context: CommandContext,
  said: GivenOptions,
  file: ConfigFile | undefined,
): Readonly<Record<string, string | number | boolean>> {
  const name = versionName(versionOf(said));
  const names = registry.names(SHARDING);
  if (!names.includes(name)) {
    const allowed = names.map((other) => other.replace(/^fsdp(?=\d+$)/, ""));
    throw new ConfigError(
      `cannot use ${said.fsdpVersion!.where}: given ${described(versionOf(said))}, allowed are ${allowed.join(", ")} and what plugins bring`,
    );
  }
  const version = registry.get(SHARDING, name);
  const versions = names.map((other) => registry.get(SHARDING, other));
  const own: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(file?.unknownFsdp ?? {})) {
    if (hasSetting(version, key)) own[key] = value;
    // One file may serve several versions.
    else if (!versions.some((other) => hasSetting(other, key))) {
      const keys = OPTION_NAMES.map((option) => optionOf(option).key);
      throw unknownKey(key, file!.name, [...keys, ...Object.keys(version.options ?? {})]);
    }
  }
  return checkSettings(name, version, {
    ...own,
    ...keyValues(context.options["fsdp-options"], "--fsdp-options"),
  });
}

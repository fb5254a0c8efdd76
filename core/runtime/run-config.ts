/**
 * What a run is told, wherever it was written (code, command line, environment, config file): plain data that goes to
 * every rank, and the kind of plugin that reads it.
 *
 * @module
 */
import type { CommandContext, OptionSpec } from "../contracts/command.ts";
import type { Kind, Registry } from "../contracts/plugin.ts";
import { PLACE_OPTIONS, type Place } from "./place.ts";

/** How a model is sharded. What is absent does not apply to the version. */
export interface ShardingConfig {
  /** Registered version, for example `"fsdp2"`. */
  readonly version: string;
  /** Values of the version's own options. */
  readonly settings: Readonly<Record<string, string | number | boolean>>;
  /** FSDP1's. */
  readonly strategy?:
    | "FULL_SHARD"
    | "SHARD_GRAD_OP"
    | "NO_SHARD"
    | "HYBRID_SHARD"
    | "HYBRID_SHARD_ZERO2"
    | undefined;
  /** `true`: free the units' gathered parameters after forward (the root keeps its own); a number: keep them cut over that many ranks. */
  readonly reshardAfterForward?: boolean | number | undefined;
  readonly backwardPrefetch?: "BACKWARD_PRE" | "BACKWARD_POST" | "NO_PREFETCH" | undefined;
  /** A number: so many units ahead. */
  readonly forwardPrefetch: boolean | number;
  readonly useOrigParams?: boolean | undefined;
  readonly syncModuleStates?: boolean | undefined;
  /** Rank 0 alone reads a model's values. */
  readonly cpuRamEfficientLoading: boolean;
  /** Shards, gradients and optimizer state in host memory. */
  readonly offload: boolean;
  readonly activationCheckpointing: boolean;
  readonly wrapPolicy: "TRANSFORMER_BASED_WRAP" | "SIZE_BASED_WRAP" | "NO_WRAP";
  /** Classes of TRANSFORMER_BASED_WRAP; `undefined`: the model's blocks, if it says which these are. */
  readonly wrapClasses?: readonly string[] | undefined;
  /** Of SIZE_BASED_WRAP. */
  readonly minNumParams: number;
  /** Modules that stay whole on every rank: a regular expression for their whole names. */
  readonly ignoredModules?: string | undefined;
  readonly stateDictType: "FULL_STATE_DICT" | "LOCAL_STATE_DICT" | "SHARDED_STATE_DICT";
  /** Groups of ranks that hold the same shards (HSDP). `undefined`: one for each host under a hybrid strategy, otherwise 1. */
  readonly replicas?: number | undefined;
}

/** A run's configuration, all sources taken together. */
export interface RunConfig {
  readonly place: Place;
  readonly sharding: ShardingConfig;
  readonly mixedPrecision: "no" | "fp16" | "bf16";
  /** Microbatches a step. */
  readonly accumulation: number;
  /** What the user should know of it, a line each. */
  readonly notes: readonly string[];
}

/** Reads configurations. */
export interface RunConfigReader {
  /** Options that a command which shards a model takes over into its own table. */
  readonly options: Readonly<Record<string, OptionSpec>>;
  /** Options that a command which also trains one takes over. */
  readonly trainingOptions: Readonly<Record<string, OptionSpec>>;
  /**
   * Takes together what command line, environment and config file say; plugins that the file names are set up.
   *
   * @throws ConfigError that names what is wrong, and where it was written.
   */
  read(context: CommandContext): Promise<RunConfig>;
}

/** Readers, by the form of configuration that they know. */
export const RUN_CONFIG: Kind<RunConfigReader> = { name: "configuration" };

/** Options of a command that shards a model, and of one that trains it too. */
export function runOptions(
  registry: Registry,
  purpose: "shard" | "train",
): Readonly<Record<string, OptionSpec>> {
  const { options, trainingOptions } = readerOf(registry);
  return { ...PLACE_OPTIONS, ...options, ...(purpose === "train" ? trainingOptions : {}) };
}

/** The configuration of a command with `runOptions`; what the user should know of it is said. @throws ConfigError */
export async function readRunConfig(context: CommandContext): Promise<RunConfig> {
  const config = await readerOf(context.registry).read(context);
  for (const note of config.notes) context.printError(note);
  return config;
}

/** The form that was registered first. @throws PluginError when there is none. */
function readerOf(registry: Registry): RunConfigReader {
  const [form = "any"] = registry.names(RUN_CONFIG);
  return registry.get(RUN_CONFIG, form);
}

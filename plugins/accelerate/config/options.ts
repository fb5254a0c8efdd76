/**
 * The options of `FullyShardedDataParallelPlugin`: one table, from which come its types and checks, what the environment,
 * config files and the command line may say, help, and the table of the README.
 *
 * Names, values and what each FSDP version makes of them are Accelerate's (`utils/dataclasses.py`), with one default for
 * all ways to say a thing.
 *
 * @module
 */

/** What values an option has. */
export type OptionKind =
  | "boolean"
  | "integer"
  | "choice"
  /** Names, separated by commas. */
  | "names"
  /** A regular expression. */
  | "pattern"
  /** A boolean, or an integer from 2. */
  | "degree"
  /** A version's number, or its registered name. */
  | "version";

/** What a version makes of an option; absent: it keeps it. */
export interface VersionRule {
  /** Given all the same, it is ignored with a warning that ends in this. */
  readonly ignored?: string;
  /** Given all the same, it is an error. What is done instead, for the documents. */
  readonly refused?: string;
  /** Default of this version. */
  readonly default?: string;
  /** What it does otherwise, for the documents. */
  readonly note?: string;
}

/** One option. */
export interface ConfigOption {
  /** Key in `fsdp_config`, also without `fsdp_`; `--fsdp-...` on a command line. */
  readonly key: string;
  /** Another key that older files have. */
  readonly oldKey?: string;
  /** Environment variable. */
  readonly env: string;
  readonly kind: OptionKind;
  readonly choices?: readonly string[];
  /** Smallest allowed integer. */
  readonly min?: number;
  readonly default: string | number | boolean | undefined;
  /** What no value means. */
  readonly absent?: string;
  readonly description: string;
  readonly v1?: VersionRule;
  readonly v2?: VersionRule;
}

/** The options, by their name in code. */
export const CONFIG_OPTIONS = {
  fsdpVersion: {
    key: "fsdp_version",
    env: "FSDP_VERSION",
    kind: "version",
    default: 2,
    description: "version of FSDP: 1, 2, or the name that a plugin registered",
  },
  shardingStrategy: {
    key: "fsdp_sharding_strategy",
    env: "FSDP_SHARDING_STRATEGY",
    kind: "choice",
    choices: ["FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD", "HYBRID_SHARD_ZERO2"] as const,
    default: undefined,
    description: "what is sharded, and whether gathered parameters are freed after forward",
    v1: { default: "FULL_SHARD" },
    v2: { ignored: "deprecated in favour of fsdp_reshard_after_forward" },
  },
  reshardAfterForward: {
    key: "fsdp_reshard_after_forward",
    env: "FSDP_RESHARD_AFTER_FORWARD",
    kind: "degree",
    default: true,
    description:
      "free gathered parameters after forward (the root keeps its own); a number keeps them cut over that many ranks",
    v1: { refused: "give fsdp_sharding_strategy; a strategy's name given here counts as that" },
  },
  backwardPrefetch: {
    key: "fsdp_backward_prefetch",
    oldKey: "fsdp_backward_prefetch_policy",
    env: "FSDP_BACKWARD_PREFETCH",
    kind: "choice",
    choices: ["BACKWARD_PRE", "BACKWARD_POST", "NO_PREFETCH"] as const,
    default: "BACKWARD_PRE",
    description:
      "when the next unit's parameters are gathered in backward: before or after this one's gradients, or not ahead",
    v2: { ignored: "FSDP2 always gathers the next unit before this one's gradients (BACKWARD_PRE)" },
  },
  forwardPrefetch: {
    key: "fsdp_forward_prefetch",
    env: "FSDP_FORWARD_PREFETCH",
    kind: "degree",
    default: false,
    description: "gather the next unit's parameters while one computes; a number gathers so many units ahead",
    v1: { note: "true or false" },
  },
  useOrigParams: {
    key: "fsdp_use_orig_params",
    env: "FSDP_USE_ORIG_PARAMS",
    kind: "boolean",
    default: true,
    description: "optimizers see the model's own parameters, not a flat one a unit",
    v2: { ignored: "FSDP2 always keeps the model's own parameters" },
  },
  syncModuleStates: {
    key: "fsdp_sync_module_states",
    env: "FSDP_SYNC_MODULE_STATES",
    kind: "boolean",
    default: false,
    description: "every rank begins with rank 0's values",
    v1: { note: "true with fsdp_cpu_ram_efficient_loading" },
    v2: { ignored: "all ranks begin with the same values" },
  },
  cpuRamEfficientLoading: {
    key: "fsdp_cpu_ram_efficient_loading",
    env: "FSDP_CPU_RAM_EFFICIENT_LOADING",
    kind: "boolean",
    default: false,
    description:
      "rank 0 alone reads a model's values and sends each rank its shards; otherwise every rank reads its own part",
  },
  cpuOffload: {
    key: "fsdp_offload_params",
    env: "FSDP_OFFLOAD_PARAMS",
    kind: "boolean",
    default: false,
    description: "keep shards, gradients and optimizer state in host memory",
  },
  autoWrapPolicy: {
    key: "fsdp_auto_wrap_policy",
    env: "FSDP_AUTO_WRAP_POLICY",
    kind: "choice",
    choices: ["TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP"] as const,
    default: "TRANSFORMER_BASED_WRAP",
    description: "which modules become units",
  },
  transformerClsNamesToWrap: {
    key: "fsdp_transformer_layer_cls_to_wrap",
    env: "FSDP_TRANSFORMER_CLS_TO_WRAP",
    kind: "names",
    default: undefined,
    absent: "the model's blocks",
    description: "classes of TRANSFORMER_BASED_WRAP",
  },
  minNumParams: {
    key: "fsdp_min_num_params",
    env: "FSDP_MIN_NUM_PARAMS",
    kind: "integer",
    min: 0,
    default: 100_000_000,
    description: "size from which SIZE_BASED_WRAP takes a module",
    v1: { note: "at least so many elements that no module below has taken" },
    v2: { note: "more than so many elements, those of its children included" },
  },
  ignoredModules: {
    key: "fsdp_ignored_modules",
    env: "FSDP_IGNORED_MODULES",
    kind: "pattern",
    default: undefined,
    absent: "none",
    description: "modules that stay whole on every rank: a regular expression that fits their whole names",
  },
  stateDictType: {
    key: "fsdp_state_dict_type",
    env: "FSDP_STATE_DICT_TYPE",
    kind: "choice",
    choices: ["FULL_STATE_DICT", "LOCAL_STATE_DICT", "SHARDED_STATE_DICT"] as const,
    default: "SHARDED_STATE_DICT",
    description: "for scripts to ask; getStateDict is always full, saveState always sharded",
    v1: { default: "FULL_STATE_DICT" },
    v2: { note: "LOCAL_STATE_DICT is refused" },
  },
  activationCheckpointing: {
    key: "fsdp_activation_checkpointing",
    env: "FSDP_ACTIVATION_CHECKPOINTING",
    kind: "boolean",
    default: false,
    description: "recompute a unit's activations in backward instead of keeping them",
  },
} as const;

/** Name of an option in code. */
export type OptionName = keyof typeof CONFIG_OPTIONS;

type ValueOf<O extends ConfigOption> = O extends { kind: "boolean" }
  ? boolean
  : O extends { kind: "integer" }
    ? number
    : O extends { kind: "choice"; choices: readonly (infer C)[] }
      ? C
      : O extends { kind: "names" }
        ? readonly string[]
        : O extends { kind: "degree" }
          ? boolean | number
          : O extends { kind: "version" }
            ? number | string
            : string;

/** Checked values of options. */
export type OptionValues = { readonly [N in OptionName]?: ValueOf<(typeof CONFIG_OPTIONS)[N]> | undefined };

/** Names of all options, in the table's order. */
export const OPTION_NAMES: readonly OptionName[] = Object.keys(CONFIG_OPTIONS) as OptionName[];

/** An option's row. */
export function optionOf(name: OptionName): ConfigOption {
  return CONFIG_OPTIONS[name];
}

/**
 * `FullyShardedDataParallelPlugin`: how a script says what sharding it wants, as Accelerate's class of that name.
 *
 * @module
 */
import process from "node:process";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { checkPolicy, type MixedPrecisionPolicy } from "../../../core/engine/mixed-precision.ts";
import type { WrapPolicy } from "../../../core/engine/wrap-policy.ts";
import type { AnyModule } from "../../../core/nn/module.ts";
import { currentRank, isLaunched } from "../../../core/runtime/current-rank.ts";
import { quoted, quotedList } from "../../../core/runtime/names.ts";
import type { ShardingConfig } from "../../../core/runtime/run-config.ts";
import type { ShardModelOptions } from "../../../core/runtime/shard-model.ts";
import { type Environment, firstGiven, givenByCode } from "./given.ts";
import { launchSettings } from "./launch-settings.ts";
import type { OptionValues } from "./options.ts";
import { resolveOptions, versionOf } from "./resolve.ts";
import { shardingConfig } from "./sharding-config.ts";
import { parseValue } from "./values.ts";

/** How a full or sharded state dict is delivered. */
export interface StateDictConfig {
  /** Tensors are copied to host memory. */
  readonly offloadToCpu?: boolean;
  /** FULL_STATE_DICT: rank 0 gets it, the others get nothing. */
  readonly rank0Only?: boolean;
}

/** Options of the plugin: those of the table, and what only code can say. */
export interface FullyShardedDataParallelPluginOptions
  extends Omit<OptionValues, "autoWrapPolicy" | "cpuOffload" | "ignoredModules"> {
  /** A policy's name, or a policy. */
  readonly autoWrapPolicy?: OptionValues["autoWrapPolicy"] | WrapPolicy | undefined;
  readonly cpuOffload?: boolean | { readonly offloadParams: boolean } | undefined;
  /** A regular expression that fits whole names, or the modules themselves. */
  readonly ignoredModules?: string | RegExp | Iterable<AnyModule> | undefined;
  /** A name stands for both parameters and reductions. Left out: what the accelerator is told. */
  readonly mixedPrecisionPolicy?: MixedPrecisionPolicy | "no" | "fp32" | "fp16" | "bf16" | "fp8" | undefined;
  /** FSDP1: at most two gathers under way. Default true. */
  readonly limitAllGathers?: boolean | undefined;
  /** FSDP1: fills a module's own parameters and buffers in place of its initialisers. */
  readonly paramInitFn?: ((module: AnyModule) => void) | undefined;
  readonly stateDictConfig?: StateDictConfig | undefined;
  readonly optimStateDictConfig?: StateDictConfig | undefined;
  /** Groups of ranks that hold the same shards. */
  readonly replicas?: number | undefined;
  /** Options of a third party's version. */
  readonly settings?: Readonly<Record<string, string | number | boolean>> | undefined;
}

const PRECISIONS = {
  no: undefined,
  fp32: { paramDtype: "float32", reduceDtype: "float32" },
  fp16: { paramDtype: "float16", reduceDtype: "float16" },
  bf16: { paramDtype: "bfloat16", reduceDtype: "bfloat16" },
  // As Accelerate: eight bits are for matrix products, the rest is bfloat16.
  fp8: { paramDtype: "bfloat16", reduceDtype: "bfloat16" },
} as const;

const POLICY_FIELDS: readonly string[] = ["paramDtype", "reduceDtype", "outputDtype", "castForwardInputs"];

/** Printed warnings: each once in a process. */
const warned = new Set<string>();

/**
 * How to shard. Every option of `plugins/accelerate/README.md`, as the code says it, else the launcher's command line,
 * else the environment, else the config file, else its default. Does nothing by itself: an accelerator reads it.
 *
 * @example
 * const fsdpPlugin = new FullyShardedDataParallelPlugin({ reshardAfterForward: false });
 */
export class FullyShardedDataParallelPlugin {
  // The options of the table as they hold; `undefined` where one does not apply to the version.
  declare readonly fsdpVersion: number | string;
  declare readonly shardingStrategy: OptionValues["shardingStrategy"];
  declare readonly reshardAfterForward: OptionValues["reshardAfterForward"];
  declare readonly backwardPrefetch: OptionValues["backwardPrefetch"];
  declare readonly forwardPrefetch: OptionValues["forwardPrefetch"];
  declare readonly useOrigParams: OptionValues["useOrigParams"];
  declare readonly syncModuleStates: OptionValues["syncModuleStates"];
  declare readonly cpuRamEfficientLoading: OptionValues["cpuRamEfficientLoading"];
  declare readonly cpuOffload: OptionValues["cpuOffload"];
  declare readonly autoWrapPolicy: OptionValues["autoWrapPolicy"];
  declare readonly transformerClsNamesToWrap: OptionValues["transformerClsNamesToWrap"];
  declare readonly minNumParams: OptionValues["minNumParams"];
  declare readonly ignoredModules: OptionValues["ignoredModules"];
  declare readonly activationCheckpointing: OptionValues["activationCheckpointing"];
  /** The same for the runtime, as plain data. */
  readonly config: ShardingConfig;
  readonly mixedPrecisionPolicy: MixedPrecisionPolicy | undefined;
  readonly stateDictConfig: StateDictConfig;
  readonly optimStateDictConfig: StateDictConfig;
  /** What was given in vain, and why. */
  readonly warnings: readonly string[];
  /** What only code can say, for `shardModel`. */
  readonly overrides: Pick<ShardModelOptions, "wrap" | "ignoredModules" | "settings">;
  #stateDictType: NonNullable<OptionValues["stateDictType"]>;

  /** @throws ConfigError for a bad value, or one that the version refuses. */
  constructor(options: FullyShardedDataParallelPluginOptions = {}, env: Environment = process.env) {
    const { autoWrapPolicy, cpuOffload, ignoredModules, limitAllGathers, paramInitFn } = options;
    const wrap = typeof autoWrapPolicy === "function" ? autoWrapPolicy : undefined;
    const pattern = ignoredModules instanceof RegExp ? ignoredModules.source : ignoredModules;
    const code = givenByCode({
      ...options,
      autoWrapPolicy: wrap === undefined ? autoWrapPolicy : undefined,
      cpuOffload: typeof cpuOffload === "object" ? cpuOffload.offloadParams : cpuOffload,
      ignoredModules: typeof pattern === "string" ? pattern : undefined,
    });
    const settings = launchSettings(env);
    const { values, warnings } = resolveOptions(firstGiven(code, settings.fsdp));
    const isLaunchers = versionOf(settings.fsdp) === values.fsdpVersion;
    const isFsdp1 = values.fsdpVersion === 1;
    const inVain = isFsdp1 ? [] : codeOnlyWarnings(values.fsdpVersion!, { limitAllGathers, paramInitFn });
    const { stateDictType, ...fields } = values;
    Object.assign(this, fields);
    this.warnings = Object.freeze([...warnings, ...inVain]);
    this.config = shardingConfig(values, {
      settings: { ...(isLaunchers ? settings.versionSettings : {}), ...options.settings },
      replicas: options.replicas ?? settings.replicas,
    });
    this.overrides = {
      wrap,
      ignoredModules: typeof pattern === "string" ? undefined : pattern,
      settings: isFsdp1 ? { limitAllGathers, paramInitFn } : undefined,
    };
    this.mixedPrecisionPolicy = precisionPolicy(options.mixedPrecisionPolicy);
    this.#stateDictType = stateDictType!;
    const rank0Only = this.#stateDictType === "FULL_STATE_DICT";
    this.stateDictConfig = options.stateDictConfig ?? { offloadToCpu: true, rank0Only };
    this.optimStateDictConfig = options.optimStateDictConfig ?? this.stateDictConfig;
    // The launcher has told what was given to it.
    const told = isLaunched() ? resolveOptions(settings.fsdp).warnings : [];
    printOnce(this.warnings.filter((warning) => !told.includes(warning)));
  }

  /** What state dicts hold from now on. */
  get stateDictType(): NonNullable<OptionValues["stateDictType"]> {
    return this.#stateDictType;
  }

  /** Changes it. @throws ConfigError for a type that the version refuses. */
  setStateDictType(type: NonNullable<OptionValues["stateDictType"]>): void {
    const checked = parseValue("stateDictType", type, "stateDictType")!;
    resolveOptions(givenByCode({ fsdpVersion: this.fsdpVersion, stateDictType: checked }));
    this.#stateDictType = checked;
  }
}

function precisionPolicy(
  given: FullyShardedDataParallelPluginOptions["mixedPrecisionPolicy"],
): MixedPrecisionPolicy | undefined {
  if (typeof given !== "string") {
    if (given !== undefined) checkOwnPolicy(given);
    return given;
  }
  const name = given.toLowerCase();
  if (!Object.hasOwn(PRECISIONS, name)) {
    throw new ConfigError(
      `cannot use mixedPrecisionPolicy: given "${given}", allowed are ${Object.keys(PRECISIONS).join(", ")} and a policy`,
    );
  }
  return PRECISIONS[name as keyof typeof PRECISIONS];
}

/** @throws ConfigError for a field that policies do not have (another version's), or a dtype that is not floating. */
function checkOwnPolicy(policy: MixedPrecisionPolicy): void {
  const odd = Object.keys(policy).find((key) => !POLICY_FIELDS.includes(key));
  if (odd !== undefined) {
    throw new ConfigError(
      `cannot use mixedPrecisionPolicy: given ${quoted(odd)}, allowed are ${quotedList(POLICY_FIELDS)}`,
    );
  }
  checkPolicy(policy);
}

function codeOnlyWarnings(
  version: number | string,
  given: Pick<FullyShardedDataParallelPluginOptions, "limitAllGathers" | "paramInitFn">,
): readonly string[] {
  return Object.entries(given).flatMap(([name, value]) =>
    value === undefined
      ? []
      : [`${name} is ignored by FSDP version ${version}: FSDP1 alone has it, remove it`],
  );
}

/** Rank 0 speaks for all. */
function printOnce(warnings: readonly string[]): void {
  if (isLaunched() && currentRank().rank !== 0) return;
  for (const warning of warnings) {
    if (warned.has(warning)) continue;
    warned.add(warning);
    process.stderr.write(`warning: ${warning}\n`);
  }
}

/**
 * From what is given to what holds: defaults, and what each FSDP version makes of an option (Accelerate's
 * `FullyShardedDataParallelPlugin.__post_init__`; the README lists where this differs, and why).
 *
 * @module
 */

import * as v from "valibot";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { checkGiven, type GivenOptions } from "./given.ts";
import {
  CONFIG_OPTIONS,
  OPTION_NAMES,
  type OptionName,
  type OptionValues,
  optionOf,
  type VersionRule,
} from "./options.ts";
import { described, schemaOf } from "./values.ts";

/** Options as they hold. */
export interface ResolvedOptions {
  /** Every option that applies to the version; `undefined` for the others. */
  readonly values: OptionValues;
  /** What was given in vain, a line each, in the table's order. */
  readonly warnings: readonly string[];
}

/** What a sharding strategy is called under version 2. */
const RESHARD_OF = {
  FULL_SHARD: "FULL_SHARD is fsdp_reshard_after_forward: true",
  SHARD_GRAD_OP: "SHARD_GRAD_OP is fsdp_reshard_after_forward: false",
  NO_SHARD: "NO_SHARD is a dp_replicate_size of as many as there are ranks",
  HYBRID_SHARD: "HYBRID_SHARD is fsdp_reshard_after_forward: true with a dp_replicate_size",
  HYBRID_SHARD_ZERO2: "HYBRID_SHARD_ZERO2 is fsdp_reshard_after_forward: false with a dp_replicate_size",
} as const;

/**
 * The options that hold.
 *
 * @throws ConfigError for a bad value, naming it as the user wrote it, and for one that the version refuses.
 */
export function resolveOptions(all: GivenOptions): ResolvedOptions {
  const fsdpVersion = versionOf(all);
  const given = fsdpVersion === 1 ? strategyFromReshard(all) : all;
  const checked = checkGiven(given);
  const warnings: string[] = [];
  const values: Partial<Record<OptionName, unknown>> = { fsdpVersion };
  for (const name of OPTION_NAMES) {
    if (name === "fsdpVersion") continue;
    const rule = ruleOf(name, fsdpVersion);
    if (rule.refused !== undefined) continue;
    if (rule.ignored === undefined)
      values[name] = checked[name] ?? rule.default ?? defaultOf(name, fsdpVersion);
    else if (checked[name] !== undefined)
      warnings.push(ignoredWarning(name, given[name]!.where, fsdpVersion, checked));
  }
  const resolved = values as OptionValues;
  if (fsdpVersion === 1 && typeof resolved.forwardPrefetch === "number") {
    throw new ConfigError(
      `cannot use ${given.forwardPrefetch!.where}: given ${resolved.forwardPrefetch}, FSDP version 1 has "true" and "false"`,
    );
  }
  if (fsdpVersion === 1)
    return { values: { ...resolved, ...syncForLoading(resolved, checked, warnings) }, warnings };
  if (fsdpVersion === 2 && resolved.stateDictType === "LOCAL_STATE_DICT") {
    throw new ConfigError(
      `cannot use ${given.stateDictType!.where}: given "LOCAL_STATE_DICT", FSDP version 2 has "SHARDED_STATE_DICT" and "FULL_STATE_DICT"`,
    );
  }
  return { values: resolved, warnings };
}

/** The version that is given, with the built-in ones by their numbers. */
export function versionOf(given: GivenOptions): number | string {
  const version = checkGiven(given, ["fsdpVersion"]).fsdpVersion ?? CONFIG_OPTIONS.fsdpVersion.default;
  return version === "fsdp1" ? 1 : version === "fsdp2" ? 2 : version;
}

function ruleOf(name: OptionName, version: number | string): VersionRule {
  const { v1, v2 } = optionOf(name);
  return (version === 1 ? v1 : version === 2 ? v2 : undefined) ?? {};
}

/** A third party's version hears of FSDP1's options only when they are given. */
function defaultOf(name: OptionName, version: number | string): unknown {
  const { default: value, v2 } = optionOf(name);
  return typeof version === "string" && v2?.ignored !== undefined ? undefined : value;
}

function ignoredWarning(
  name: OptionName,
  where: string,
  version: number | string,
  checked: OptionValues,
): string {
  const because = ruleOf(name, version).ignored!;
  const instead =
    name === "shardingStrategy" && checked.shardingStrategy !== undefined
      ? `: ${RESHARD_OF[checked.shardingStrategy]}`
      : ", remove it";
  return `${where} is ignored by FSDP version ${version}: ${because}${instead}`;
}

/**
 * `accelerate config` writes version 1's strategy under `fsdp_reshard_after_forward`, where Accelerate then loses it.
 * Here it counts, unless a strategy is given too.
 */
function strategyFromReshard(given: GivenOptions): GivenOptions {
  const { reshardAfterForward, ...rest } = given;
  if (reshardAfterForward === undefined) return given;
  const { value, where } = reshardAfterForward;
  const strategy = typeof value === "string" && v.safeParse(schemaOf(CONFIG_OPTIONS.shardingStrategy), value);
  if (strategy === false || !strategy.success) {
    throw new ConfigError(
      `cannot use ${where}: given ${described(value)} with FSDP version 1, whose fsdp_sharding_strategy says it: "FULL_SHARD" frees parameters after forward, "SHARD_GRAD_OP" does not`,
    );
  }
  return { shardingStrategy: reshardAfterForward, ...rest };
}

/** Who loads on rank 0 alone must send the values to the others. */
function syncForLoading(values: OptionValues, checked: OptionValues, warnings: string[]): OptionValues {
  if (values.cpuRamEfficientLoading !== true) return {};
  if (checked.syncModuleStates === false) {
    warnings.push("fsdp_sync_module_states is set to true: fsdp_cpu_ram_efficient_loading needs it");
  }
  return { syncModuleStates: true };
}

/**
 * From options as they hold to what the runtime shards by.
 *
 * @module
 */
import type { ShardingConfig } from "../../../core/runtime/run-config.ts";
import type { OptionValues } from "./options.ts";

/** The registered name of a version: `fsdp2` for 2. */
export function versionName(version: number | string): string {
  return typeof version === "number" ? `fsdp${version}` : version;
}

/** The same as plain data for ranks. */
export function shardingConfig(
  values: OptionValues,
  more: Pick<ShardingConfig, "settings" | "replicas">,
): ShardingConfig {
  return Object.freeze<ShardingConfig>({
    version: versionName(values.fsdpVersion!),
    settings: more.settings,
    strategy: values.shardingStrategy,
    reshardAfterForward: values.reshardAfterForward,
    backwardPrefetch: values.backwardPrefetch,
    forwardPrefetch: values.forwardPrefetch ?? false,
    useOrigParams: values.useOrigParams,
    syncModuleStates: values.syncModuleStates,
    cpuRamEfficientLoading: values.cpuRamEfficientLoading ?? false,
    offload: values.cpuOffload ?? false,
    activationCheckpointing: values.activationCheckpointing ?? false,
    wrapPolicy: values.autoWrapPolicy!,
    wrapClasses: values.transformerClsNamesToWrap,
    minNumParams: values.minNumParams!,
    ignoredModules: values.ignoredModules,
    stateDictType: values.stateDictType!,
    replicas: more.replicas,
  });
}

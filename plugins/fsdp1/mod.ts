/**
 * FSDP1 as a version plugin.
 *
 * @module
 */
import type { Plugin } from "../../core/contracts/plugin.ts";
import { SHARDING } from "../../core/runtime/sharding-version.ts";
import { fsdp1Version } from "./version.ts";

export {
  type FullStateDictOptions,
  FullyShardedDataParallel,
  type StateDictType,
} from "./fully-sharded-data-parallel.ts";
export { type FlatParameterHandle, flatParameterHandles } from "./handles.ts";
export type {
  BackwardPrefetch,
  CPUOffload,
  FullyShardedDataParallelOptions,
  MixedPrecision,
  ShardingStrategy,
  UnitOptions,
} from "./options.ts";

export { type OptimStateById, rekeyOptimStateDict } from "./rekey-optim-state-dict.ts";
export type { SummonOptions } from "./summon-full-params.ts";

/** Registers FSDP version `"fsdp1"`. */
export const fsdp1Plugin: Plugin = Object.freeze<Plugin>({
  name: "fsdp1",
  setup: (registry) => registry.register(SHARDING, "fsdp1", fsdp1Version),
});

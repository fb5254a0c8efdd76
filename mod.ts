#!/usr/bin/env bun
/**
 * `fsdp`: fully sharded data parallel training in TypeScript, for Bun and Deno.
 *
 * This is the one public entry: what it exports is the library, and the registry that it composes holds the built-in
 * plugins. Run directly (`bun mod.ts train`, `deno run -A mod.ts train`) it is the command line. Importing it starts
 * and prints nothing.
 *
 * @module
 */
import process from "node:process";
import { collectivesPlugin } from "./backends/collectives/mod.ts";
import { cpuPlugin } from "./backends/cpu/mod.ts";
import { webgpuPlugin } from "./backends/webgpu/mod.ts";
import { checkpointPlugin } from "./checkpoint/mod.ts";
import type { Registry } from "./core/contracts/plugin.ts";
import type { RankFunction } from "./core/contracts/transport.ts";
import { runCommandLine } from "./core/runtime/command-line.ts";
import { envPlugin } from "./core/runtime/env-command.ts";
import { type LaunchScriptOptions, launchPlugin, launchScript } from "./core/runtime/launch.ts";
import { programRunner } from "./core/runtime/rank-program.ts";
import { createRegistry, usePlugins } from "./core/runtime/registry.ts";
import {
  type Accelerator as AcceleratorInstance,
  type AcceleratorOptions,
  acceleratePlugin,
  createAccelerator,
} from "./plugins/accelerate/mod.ts";
import { float8Plugin } from "./plugins/float8/mod.ts";
import { fsdp1Plugin } from "./plugins/fsdp1/mod.ts";
import { fsdp2Plugin } from "./plugins/fsdp2/mod.ts";
import { trainPlugin } from "./plugins/train/mod.ts";
import { transformersPlugin } from "./plugins/transformers/mod.ts";

export { localCollectives, singleCollective } from "./backends/collectives/mod.ts";
export { type NativeCheckpointerOptions, nativeCheckpointer } from "./checkpoint/checkpointer.ts";
export {
  type CheckpointAppOptions,
  type ClientOptions,
  createCheckpointApp,
  httpStore,
  type RequestLogEntry,
  readTokenFile,
  type Scope,
  type ServiceLimits,
  type TokenRecord,
} from "./checkpoint/mod.ts";
export { directoryStore } from "./checkpoint/stores/directory.ts";
export { memoryStore } from "./checkpoint/stores/memory.ts";
export type * from "./core/contracts/backend.ts";
export type * from "./core/contracts/checkpointer.ts";
export type * from "./core/contracts/collective.ts";
export type * from "./core/contracts/command.ts";
export type { DType, HostArray, StoredArray, StoredDType } from "./core/contracts/dtype.ts";
export * from "./core/contracts/errors.ts";
export type * from "./core/contracts/kernels.ts";
export type * from "./core/contracts/memory.ts";
export * from "./core/contracts/plugin.ts";
export type * from "./core/contracts/shard.ts";
export type * from "./core/contracts/transport.ts";
export { type ClipOptions, clipGradNorm } from "./core/engine/clip.ts";
export { gatherParameter } from "./core/engine/full-tensor.ts";
export {
  averageDivision,
  type DivisionPlan,
  type DivisionRequest,
  type GradientDivision,
  splitDivision,
} from "./core/engine/gradient-division.ts";
export type { MixedPrecisionPolicy } from "./core/engine/mixed-precision.ts";
export {
  type FullModelStateDict,
  fullTensors,
  getModelStateDict,
  type ShardedModelStateDict,
  setModelStateDict,
} from "./core/engine/model-state-dict.ts";
export type { OffloadPolicy } from "./core/engine/offload.ts";
export {
  type FullOptimizerStateDict,
  getOptimizerStateDict,
  type OptimizerParameterState,
  type OptimizerStateDict,
  type ShardedOptimizerStateDict,
  setOptimizerStateDict,
} from "./core/engine/optimizer-state-dict.ts";
export { loadFromRank0 } from "./core/engine/rank0-loading.ts";
export type { AllReduceHook } from "./core/engine/reduce.ts";
export { type ShardModuleOptions, setRequiresGradientSync, shardModule } from "./core/engine/shard-module.ts";
export { modelState, optimizerState } from "./core/engine/sharded-state.ts";
export type {
  GetStateDictOptions,
  HostTensor,
  IncompatibleKeys,
  SetStateDictOptions,
} from "./core/engine/state-dict.ts";
export { traceUnits } from "./core/engine/trace.ts";
export type { UnitEvent, UnitListener } from "./core/engine/unit-events.ts";
export {
  alwaysWrap,
  type ModuleClass,
  modulesToWrap,
  moduleWrap,
  noWrap,
  orWrap,
  remainingSizeWrap,
  sizeWrap,
  transformerWrap,
  type WrapContext,
  type WrapPolicy,
} from "./core/engine/wrap-policy.ts";
export * as nn from "./core/nn/mod.ts";
export * as optim from "./core/optim/mod.ts";
export { currentRank, isLaunched } from "./core/runtime/current-rank.ts";
export {
  type DeviceMesh,
  type DeviceMeshOptions,
  deviceMeshFromGroups,
  initDeviceMesh,
} from "./core/runtime/device-mesh.ts";
export type { LaunchScriptOptions, Rank } from "./core/runtime/launch.ts";
export { type CausalLanguageModel, MODEL, type ModelFamily } from "./core/runtime/model-family.ts";
export { createRegistry, usePlugins } from "./core/runtime/registry.ts";
export { SHARDING, type ShardingOptions, type ShardingVersion } from "./core/runtime/sharding-version.ts";
export { Device, type DeviceOptions, type TensorOptions } from "./core/tensor/device.ts";
export * as ops from "./core/tensor/ops/mod.ts";
export { Tensor } from "./core/tensor/tensor.ts";
export {
  type AcceleratedOptimizer,
  type AcceleratedScheduler,
  type AcceleratorOptions,
  type Checkpointable,
  type Collate,
  type Collated,
  DataLoader,
  type DataLoaderOptions,
  type Dataset,
  defaultCollate,
  FullyShardedDataParallelPlugin,
  type FullyShardedDataParallelPluginOptions,
  type LoggedValue,
  type Preparable,
  type Prepared,
  type PreparedDataLoader,
  type Tracker,
} from "./plugins/accelerate/mod.ts";
export {
  convertToFloat8Training,
  type Float8Recipe,
  type Float8TrainingOptions,
  precomputeFloat8DynamicScaleForFsdp,
} from "./plugins/float8/mod.ts";
export {
  type BackwardPrefetch,
  type CPUOffload,
  type FlatParameterHandle,
  type FullStateDictOptions,
  FullyShardedDataParallel,
  type FullyShardedDataParallelOptions,
  flatParameterHandles,
  type MixedPrecision,
  type OptimStateById,
  rekeyOptimStateDict,
  type ShardingStrategy,
  type StateDictType,
  type SummonOptions,
  type UnitOptions,
} from "./plugins/fsdp1/mod.ts";
export {
  type FSDPModule,
  type FullyShardOptions,
  fullyShard,
  isFSDPModule,
  registerForwardMethod,
} from "./plugins/fsdp2/mod.ts";
export { addLora, type LoraOptions, loraParameters } from "./plugins/lora/mod.ts";
export {
  type GPT2Config,
  GPT2LMHeadModel,
  type LlamaConfig,
  LlamaForCausalLM,
  parseGPT2Config,
  parseLlamaConfig,
} from "./plugins/transformers/mod.ts";

/** Everything there is, by kind and name; third parties add theirs with `usePlugins`. */
export const registry: Registry = createRegistry({ root: import.meta.url });
usePlugins(registry, [
  cpuPlugin,
  webgpuPlugin,
  collectivesPlugin,
  checkpointPlugin,
  fsdp1Plugin,
  fsdp2Plugin,
  float8Plugin,
  transformersPlugin,
  acceleratePlugin,
  trainPlugin,
  launchPlugin,
  envPlugin,
]);

/**
 * Runs the exported function `main` of a script as the ranks of a job.
 *
 * @param module the script's `import.meta.url`.
 * @returns the ranks' results, in rank order.
 * @throws the first failing rank's error.
 */
export function launch(module: string, options: LaunchScriptOptions = {}): Promise<readonly unknown[]> {
  return launchScript(registry, module, options);
}

/** A rank's part in a training run. */
export type Accelerator = AcceleratorInstance;

/** Makes accelerators: in every rank of a launched script, or in one that runs alone. */
export const Accelerator: {
  /**
   * @throws ConfigError for options that are not allowed. @throws PluginError for an unknown backend.
   *
   * @example
   * await using accelerator = await Accelerator.create({ gradientAccumulationSteps: 4 });
   */
  create(options?: AcceleratorOptions): Promise<Accelerator>;
} = Object.freeze({ create: (options?: AcceleratorOptions) => createAccelerator(registry, options) });

/** What every rank runs: a registered program by name. Ranks import this module afresh to find it. */
export const runProgram: RankFunction = programRunner(registry);

// Not awaited: ranks in this event loop import this module, which a pending top-level await would keep from loading.
// Exits by itself, not when the event loop is empty: a device library may keep threads alive.
if (import.meta.main) {
  void runCommandLine(registry, process.argv.slice(2)).then((code) => process.exit(code));
}

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
import { fsdp2Plugin } from "./plugins/fsdp2/mod.ts";
import { trainPlugin } from "./plugins/train/mod.ts";
import { transformersPlugin } from "./plugins/transformers/mod.ts";

export { localCollectives, singleCollective } from "./backends/collectives/mod.ts";
export type * from "./core/contracts/backend.ts";
export type * from "./core/contracts/checkpointer.ts";
export type * from "./core/contracts/collective.ts";
export type * from "./core/contracts/command.ts";
export type { DType, HostArray } from "./core/contracts/dtype.ts";
export * from "./core/contracts/errors.ts";
export type * from "./core/contracts/kernels.ts";
export type * from "./core/contracts/memory.ts";
export * from "./core/contracts/plugin.ts";
export type * from "./core/contracts/shard.ts";
export type * from "./core/contracts/transport.ts";
export { type ClipOptions, clipGradNorm } from "./core/engine/clip.ts";
export { gatherParameter } from "./core/engine/full-tensor.ts";
export { type ShardModuleOptions, setRequiresGradientSync, shardModule } from "./core/engine/shard-module.ts";
export { modelState, optimizerState } from "./core/engine/sharded-state.ts";
export { noWrap, sizeWrap, transformerWrap, type WrapPolicy } from "./core/engine/wrap-policy.ts";
export * as nn from "./core/nn/mod.ts";
export * as optim from "./core/optim/mod.ts";
export { type DeviceMesh, initDeviceMesh } from "./core/runtime/device-mesh.ts";
export type { LaunchScriptOptions, Rank } from "./core/runtime/launch.ts";
export { type CausalLanguageModel, MODEL, type ModelFamily } from "./core/runtime/model-family.ts";
export { createRegistry, usePlugins } from "./core/runtime/registry.ts";
export { SHARDING, type ShardingOptions, type ShardingVersion } from "./core/runtime/sharding-version.ts";
export { Device, type DeviceOptions, type TensorOptions } from "./core/tensor/device.ts";
export * as ops from "./core/tensor/ops/mod.ts";
export { Tensor } from "./core/tensor/tensor.ts";
export { type FullyShardOptions, fullyShard } from "./plugins/fsdp2/mod.ts";
export { type GPT2Config, GPT2LMHeadModel, parseGPT2Config } from "./plugins/transformers/mod.ts";

/** Everything there is, by kind and name; third parties add theirs with `usePlugins`. */
export const registry: Registry = createRegistry({ root: import.meta.url });
usePlugins(registry, [
  cpuPlugin,
  webgpuPlugin,
  collectivesPlugin,
  checkpointPlugin,
  fsdp2Plugin,
  transformersPlugin,
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

/** What every rank runs: a registered program by name. Ranks import this module afresh to find it. */
export const runProgram: RankFunction = programRunner(registry);

// Not awaited: ranks in this event loop import this module, which a pending top-level await would keep from loading.
// Exits by itself, not when the event loop is empty: a device library may keep threads alive.
if (import.meta.main) {
  void runCommandLine(registry, process.argv.slice(2)).then((code) => process.exit(code));
}

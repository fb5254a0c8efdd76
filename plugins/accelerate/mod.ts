/**
 * Accelerate: the `Accelerator` with what it prepares; its plugin class, config files, environment variables and options;
 * the commands that write and convert config files, launch scripts, and estimate what a rank needs.
 *
 * @module
 */
import { COMMAND, type Plugin, PROGRAM } from "../../core/contracts/plugin.ts";
import { RUN_CONFIG } from "../../core/runtime/run-config.ts";
import { ALONE_PROGRAM, alone } from "./accelerator/alone.ts";
import { configReader } from "./config/read-config.ts";
import { configCommand } from "./config-command.ts";
import { estimateCommand } from "./estimate/estimate-command.ts";
import { launchCommand } from "./launch-command.ts";
import { toFsdp2Command } from "./to-fsdp2-command.ts";

export type { AcceleratedOptimizer } from "./accelerator/accelerated-optimizer.ts";
export type { AcceleratedScheduler } from "./accelerator/accelerated-scheduler.ts";
export { type Accelerator, createAccelerator } from "./accelerator/accelerator.ts";
export type { AcceleratorOptions } from "./accelerator/options.ts";
export type { Preparable, Prepared } from "./accelerator/prepare.ts";
export type { Checkpointable } from "./accelerator/saved-state.ts";
export type { LoggedValue, Tracker } from "./accelerator/tracker.ts";
export {
  FullyShardedDataParallelPlugin,
  type FullyShardedDataParallelPluginOptions,
  type StateDictConfig,
} from "./config/fsdp-plugin.ts";

export { type Collate, type Collated, defaultCollate } from "./data-loader/collate.ts";
export { DataLoader, type DataLoaderOptions, type Dataset } from "./data-loader/data-loader.ts";
export type { PreparedDataLoader } from "./data-loader/prepared-data-loader.ts";

/** Registers the reader of configurations, the commands, and the rank of a script that nobody launched. */
export const acceleratePlugin: Plugin = Object.freeze({
  name: "accelerate",
  setup(registry) {
    registry.register(RUN_CONFIG, "accelerate", configReader);
    registry.register(COMMAND, "launch", launchCommand);
    registry.register(COMMAND, "config", configCommand);
    registry.register(COMMAND, "to-fsdp2", toFsdp2Command);
    registry.register(COMMAND, "estimate", estimateCommand);
    registry.register(PROGRAM, ALONE_PROGRAM, alone);
  },
} satisfies Plugin);

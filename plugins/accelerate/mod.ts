/**
 * Accelerate's configuration: its plugin class, config files, environment variables and options; the commands that write
 * and convert config files, and the one that launches scripts.
 *
 * @module
 */
import { COMMAND, type Plugin } from "../../core/contracts/plugin.ts";
import { RUN_CONFIG } from "../../core/runtime/run-config.ts";
import { configReader } from "./config/read-config.ts";
import { configCommand } from "./config-command.ts";
import { estimateCommand } from "./estimate/estimate-command.ts";
import { launchCommand } from "./launch-command.ts";
import { toFsdp2Command } from "./to-fsdp2-command.ts";

export {
  FullyShardedDataParallelPlugin,
  type FullyShardedDataParallelPluginOptions,
  type StateDictConfig,
} from "./config/fsdp-plugin.ts";

/** Registers the reader of configurations, and the commands. */
export const acceleratePlugin: Plugin = Object.freeze({
  name: "accelerate",
  setup(registry) {
    registry.register(RUN_CONFIG, "accelerate", configReader);
    registry.register(COMMAND, "launch", launchCommand);
    registry.register(COMMAND, "config", configCommand);
    registry.register(COMMAND, "to-fsdp2", toFsdp2Command);
    registry.register(COMMAND, "estimate", estimateCommand);
  },
} satisfies Plugin);

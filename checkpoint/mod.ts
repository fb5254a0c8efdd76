/**
 * Checkpoints as a plugin: the native format, its stores, and the safetensors file format.
 *
 * @module
 */
import {
  CHECKPOINTER,
  COMMAND,
  FORMAT,
  type Plugin,
  PROGRAM,
  type Registry,
  STORE,
} from "../core/contracts/plugin.ts";
import { CHECKPOINT_SERVICE } from "../core/runtime/checkpoint-service.ts";
import { nativeCheckpointer } from "./checkpointer.ts";
import { CHECKPOINT_COMMANDS, CONVERT_PROGRAM, convertRank } from "./commands/mod.ts";
import { dcpFormat } from "./formats/dcp/format.ts";
import { safetensorsFormat } from "./formats/safetensors/format.ts";
import { startEmbeddedService } from "./server/embedded.ts";
import { serveCommand } from "./server/serve-command.ts";
import { openDirectoryStore } from "./stores/directory.ts";
import { openHttpStore } from "./stores/http/store.ts";
import { openMemoryStore } from "./stores/memory.ts";

export { createCheckpointApp } from "./server/app.ts";
export { readTokenFile, type Scope, type TokenRecord } from "./server/auth.ts";
export type { ServiceLimits } from "./server/limits.ts";
export type { CheckpointAppOptions, RequestLogEntry } from "./server/service.ts";
export type { ClientOptions } from "./stores/http/client.ts";
export { httpStore } from "./stores/http/store.ts";

/** Registers the built-in formats and stores. */
export const checkpointPlugin: Plugin = Object.freeze({
  name: "checkpoint",
  setup(registry: Registry): void {
    registry.register(FORMAT, "safetensors", safetensorsFormat);
    registry.register(FORMAT, "dcp", dcpFormat);
    registry.register(STORE, "directory", openDirectoryStore);
    registry.register(STORE, "memory", openMemoryStore);
    registry.register(STORE, "http", openHttpStore);
    registry.register(CHECKPOINTER, "native", (store, options) => nativeCheckpointer(store, options));
    registry.register(CHECKPOINT_SERVICE, "http", startEmbeddedService);
    registry.register(COMMAND, "serve", serveCommand);
    for (const [name, command] of Object.entries(CHECKPOINT_COMMANDS))
      registry.register(COMMAND, name, command);
    registry.register(PROGRAM, CONVERT_PROGRAM, convertRank);
  },
});

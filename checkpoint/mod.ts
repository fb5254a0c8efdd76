/**
 * Checkpoints as a plugin: the native format, its stores, and the safetensors file format.
 *
 * @module
 */
import { CHECKPOINTER, FORMAT, type Plugin, type Registry, STORE } from "../core/contracts/plugin.ts";
import { nativeCheckpointer } from "./checkpointer.ts";
import { safetensorsFormat } from "./formats/safetensors/format.ts";
import { openDirectoryStore } from "./stores/directory.ts";
import { openMemoryStore } from "./stores/memory.ts";

/** Registers the built-in formats and stores. */
export const checkpointPlugin: Plugin = Object.freeze({
  name: "checkpoint",
  setup(registry: Registry): void {
    registry.register(FORMAT, "safetensors", safetensorsFormat);
    registry.register(STORE, "directory", openDirectoryStore);
    registry.register(STORE, "memory", openMemoryStore);
    registry.register(CHECKPOINTER, "native", (store) => nativeCheckpointer(store));
  },
});

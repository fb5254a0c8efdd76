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
import { checkpointPlugin } from "./checkpoint/mod.ts";
import type { Registry } from "./core/contracts/plugin.ts";
import type { RankFunction } from "./core/contracts/transport.ts";
import { runCommandLine } from "./core/runtime/command-line.ts";
import { envPlugin } from "./core/runtime/env-command.ts";
import { programRunner } from "./core/runtime/rank-program.ts";
import { createRegistry, usePlugins } from "./core/runtime/registry.ts";
import { fsdp2Plugin } from "./plugins/fsdp2/mod.ts";
import { trainPlugin } from "./plugins/train/mod.ts";
import { transformersPlugin } from "./plugins/transformers/mod.ts";

/** Everything there is, by kind and name; third parties add theirs with `usePlugins`. */
export const registry: Registry = createRegistry({ root: import.meta.url });
usePlugins(registry, [
  cpuPlugin,
  collectivesPlugin,
  checkpointPlugin,
  fsdp2Plugin,
  transformersPlugin,
  trainPlugin,
  envPlugin,
]);

/** What every rank runs: a registered program by name. Ranks import this module afresh to find it. */
export const runProgram: RankFunction = programRunner(registry);

// Not awaited: ranks in this event loop import this module, which a pending top-level await would keep from loading.
// Exits by itself, not when the event loop is empty: a device library may keep threads alive.
if (import.meta.main) {
  void runCommandLine(registry, process.argv.slice(2)).then((code) => process.exit(code));
}

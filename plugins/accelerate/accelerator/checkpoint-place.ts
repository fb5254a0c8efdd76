/**
 * Where an accelerator's checkpoints lie: in folders `checkpoint_N` of a store, whatever takes the location.
 *
 * @module
 */
import process from "node:process";
import type { Checkpointer } from "../../../core/contracts/checkpointer.ts";
import { CHECKPOINTER, type Registry } from "../../../core/contracts/plugin.ts";
import { openStore } from "../../../core/runtime/checkpoint-place.ts";
import { checkpointNumber, withStepNames } from "./checkpoint-names.ts";

/** The checkpointer that saves at a location. @throws ConfigError when no store takes it. */
export function numberedCheckpoints(
  registry: Registry,
  location: string,
  totalLimit: number | undefined,
): Checkpointer {
  return registry.get(CHECKPOINTER, "native")(withStepNames(openStore(registry, location)), {
    keepLast: totalLimit,
    onRetentionFailure: (error) => {
      const problem = error instanceof Error ? error.message : String(error);
      process.stderr.write(`warning: old checkpoints were not deleted: ${problem}\n`);
    },
  });
}

/** The number of the next checkpoint of a location. */
export async function nextNumber(registry: Registry, location: string): Promise<number> {
  const numbers = (await openStore(registry, location).list()).map((name) => checkpointNumber(name) ?? -1);
  return Math.max(-1, ...numbers) + 1;
}

/** A checkpoint's own location; a service's may name it already. */
export function showPlace(location: string, name: string): string {
  const place = location.replace(/\/+$/, "");
  return place.endsWith(`/${name}`) ? place : `${place}/${name}`;
}

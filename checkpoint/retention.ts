/**
 * Which checkpoints of a run are kept. Only those are counted whose manifest can be read and whose files are all there, at
 * their length: a damaged one neither displaces a good one nor is deleted, since what is left of it may be of use.
 *
 * @module
 */
import type { CheckpointerOptions, CheckpointStore } from "../core/contracts/checkpointer.ts";
import { CheckpointError, ConfigError } from "../core/contracts/errors.ts";
import { namedSteps, openManifest } from "./open-manifest.ts";

/** What is kept. */
export type Retention = Pick<CheckpointerOptions, "keepLast" | "keepEvery">;

/** @throws ConfigError unless both are integers of at least 1. */
export function checkRetention(retention: Retention): void {
  for (const [name, value] of Object.entries({
    keepLast: retention.keepLast,
    keepEvery: retention.keepEvery,
  })) {
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 1)) {
      throw new ConfigError(`checkpointer: ${name} is ${value}, allowed are integers of at least 1`);
    }
  }
}

/** Deletes what is not kept, oldest first. @throws CheckpointError when a deletion fails. */
export async function deleteOld(store: CheckpointStore, retention: Retention): Promise<void> {
  const { keepLast, keepEvery } = retention;
  if (keepLast === undefined) return;
  const old: string[] = [];
  let kept = 0;
  for (const { name, step } of (await namedSteps(store)).toReversed()) {
    const last = kept < keepLast;
    if (!last && keepEvery !== undefined && step % keepEvery === 0) continue;
    if (!(await filesAreThere(store, name))) continue;
    if (last) kept += 1;
    else old.push(name);
  }
  for (const name of old.toReversed()) await store.delete(name);
}

async function filesAreThere(store: CheckpointStore, name: string): Promise<boolean> {
  try {
    const { manifest } = await openManifest(store, name);
    for (const file of manifest.files) {
      if ((await store.size(name, file.name)) !== file.length) return false;
    }
    return true;
  } catch (error) {
    if (error instanceof CheckpointError) return false;
    throw error;
  }
}

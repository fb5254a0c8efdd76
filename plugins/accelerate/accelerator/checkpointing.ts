/**
 * Saving and loading an accelerator's state.
 *
 * @module
 */
import type { Collective } from "../../../core/contracts/collective.ts";
import type { Registry } from "../../../core/contracts/plugin.ts";
import { findCheckpoint, openCheckpoints } from "../../../core/runtime/checkpoint-place.ts";
import { checkpointName } from "./checkpoint-names.ts";
import { nextNumber, numberedCheckpoints, showPlace } from "./checkpoint-place.ts";
import { onMain } from "./exchange.ts";
import {
  checkValues,
  fillValues,
  rankValuesOfParts,
  type StatefulParts,
  tensorsOfParts,
  valuesOfParts,
} from "./saved-state.ts";

/** Who saves what. */
export interface Checkpointing {
  readonly registry: Registry;
  readonly world: Collective;
  readonly parts: StatefulParts;
}

/**
 * Saves as the checkpoint that follows the last one at `location`. Collective.
 *
 * @param totalLimit so many are kept.
 * @returns where it lies.
 * @throws CheckpointError on every rank when it cannot be written.
 */
export async function saveParts(
  { registry, world, parts }: Checkpointing,
  location: string,
  totalLimit: number | undefined,
): Promise<string> {
  const number = await onMain(world, () => nextNumber(registry, location));
  const checkpointer = numberedCheckpoints(registry, location, totalLimit);
  const state = {
    tensors: tensorsOfParts(parts, world),
    values: valuesOfParts(parts),
    rankValues: rankValuesOfParts(parts),
  };
  try {
    await checkpointer.save(state, number, world);
  } finally {
    await checkpointer.close();
  }
  return showPlace(location, checkpointName(number));
}

/**
 * Fills everything from the checkpoint that `location` means. Collective.
 *
 * @returns where it lies.
 * @throws CheckpointError on every rank when there is none, or it does not fit.
 */
export async function loadParts(
  { registry, world, parts }: Checkpointing,
  location: string,
): Promise<string> {
  const found = await onMain(world, () => findCheckpoint(registry, location, "load state"));
  const checkpointer = openCheckpoints(registry, found.location);
  try {
    // First nothing but values, so that what does not fit is known before anything is filled.
    const { values } = await checkpointer.load({ tensors: [] }, found.name, world);
    const saved = checkValues(values, parts, found.name);
    const state = { tensors: tensorsOfParts(parts, world) };
    const { rankValues } = await checkpointer.load(state, found.name, world);
    await fillValues(saved, rankValues, world.rank, parts);
  } finally {
    await checkpointer.close();
  }
  return showPlace(found.location, found.name);
}

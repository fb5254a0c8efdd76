/**
 * Loading from the first rank: it alone reads a model's initial values (its parameters' initialisers know a file, say),
 * the others are sent just their shards. What Accelerate calls `cpu_ram_efficient_loading`.
 *
 * @module
 */
import type { AnyModule } from "../nn/module.ts";
import type { Parameter } from "../nn/parameter.ts";
import type { Device } from "../tensor/device.ts";
import { sendBoxes } from "./parameter-boxes.ts";
import { abandon, groupsOf, isFirst, type RankGroups } from "./rank-groups.ts";

/**
 * Puts a sharded model on a device, as `model.to(device)` does, with the first rank's initial values on every rank. The
 * initialisers of the others are not called. Collective over all ranks of the model.
 *
 * On the host no rank holds more than one shard of one parameter at a time, the first rank included.
 */
export async function loadFromRank0<M extends AnyModule>(model: M, device: Device): Promise<M> {
  model.nameParameters();
  const waiting = model.parameters().filter((parameter) => !parameter.materialized);
  await materializeFromRank0(waiting, groupsOf(model), device, () => model.to(device));
  return model;
}

/**
 * Gives parameters, which have their names, the first rank's initial values. Collective over `groups`.
 *
 * @param materialize puts them on the device.
 */
export async function materializeFromRank0(
  parameters: readonly Parameter[],
  groups: RankGroups | undefined,
  device: Device,
  materialize: () => Promise<unknown>,
): Promise<void> {
  const initializers = parameters.map((parameter) => parameter.initializer);
  try {
    // Zeros, until the first rank's values come.
    for (const parameter of parameters) parameter.initializer = () => {};
    await materialize();
  } finally {
    for (const [i, parameter] of parameters.entries()) parameter.initializer = initializers[i]!;
  }
  try {
    for (const parameter of parameters) {
      await sendBoxes(parameter, parameter.local, groups, (box) => parameter.initial(device.seed, box));
    }
  } catch (error) {
    if (isFirst(groups)) abandon(groups, error);
    throw error;
  }
}

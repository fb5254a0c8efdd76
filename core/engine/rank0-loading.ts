/**
 * Loading from the first rank: it alone reads a model's initial values (its parameters' initialisers know a file, say),
 * the others are sent just their shards. What Accelerate calls `cpu_ram_efficient_loading`.
 *
 * @module
 */
import type { AnyModule } from "../nn/module.ts";
import type { Device } from "../tensor/device.ts";
import { sendBoxes } from "./parameter-boxes.ts";
import { abandon, groupsOf, isFirst } from "./rank-groups.ts";

/**
 * Puts a sharded model on a device, as `model.to(device)` does, with the first rank's initial values on every rank. The
 * initialisers of the others are not called. Collective over all ranks of the model.
 *
 * On the host no rank holds more than one shard of one parameter at a time, the first rank included.
 */
export async function loadFromRank0<M extends AnyModule>(model: M, device: Device): Promise<M> {
  const groups = groupsOf(model);
  model.nameParameters();
  const waiting = model.parameters().filter((parameter) => !parameter.materialized);
  const initializers = waiting.map((parameter) => parameter.initializer);
  try {
    // Zeros, until the first rank's values come.
    for (const parameter of waiting) parameter.initializer = () => {};
    await model.to(device);
  } finally {
    for (const [i, parameter] of waiting.entries()) parameter.initializer = initializers[i]!;
  }
  try {
    for (const parameter of waiting) {
      await sendBoxes(parameter, parameter.local, groups, (box) => parameter.initial(device.seed, box));
    }
  } catch (error) {
    if (isFirst(groups)) abandon(groups, error);
    throw error;
  }
  return model;
}

/**
 * Full weights of a sharded model in one safetensors file, under the names that the model has, tensor by tensor.
 *
 * @module
 */
import type { Collective } from "../../core/contracts/collective.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { FORMAT, type Registry } from "../../core/contracts/plugin.ts";
import { gatherParameter } from "../../core/engine/full-tensor.ts";
import type { AnyModule } from "../../core/nn/module.ts";

/** What rank 0 announces when the file is complete, and when it failed. */
const DONE = -1;
const FAILED = -2;

/**
 * Writes the model's parameters to `path`. Collective: rank 0 writes and asks for one parameter after the other, in
 * the order that the format wants; the others help to gather it. No rank holds more than one whole parameter.
 *
 * @throws CheckpointError on every rank when the file cannot be written.
 */
export async function exportWeights(
  registry: Registry,
  model: AnyModule,
  path: string,
  world: Collective,
): Promise<void> {
  const parameters = model.parameters();
  const next = new Int32Array(1);
  if (world.rank !== 0) {
    for (;;) {
      await world.broadcast(next, 0).wait();
      if (next[0] === DONE) return;
      if (next[0] === FAILED) throw new CheckpointError(`write of ${path}: rank 0 could not write it`);
      await gatherParameter(parameters[next[0]!]!);
    }
  }
  const announce = async (what: number) => {
    next[0] = what;
    await world.broadcast(next, 0).wait();
  };
  const tensors = parameters.map((parameter, i) => ({
    name: parameter.name,
    dtype: parameter.originalDType,
    shape: parameter.shape,
    read: async () => {
      await announce(i);
      return await gatherParameter(parameter);
    },
  }));
  try {
    await registry.get(FORMAT, "safetensors").write(path, tensors, { format: "pt" });
  } catch (error) {
    await announce(FAILED);
    throw error;
  }
  await announce(DONE);
}

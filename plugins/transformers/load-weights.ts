/**
 * Lets a model take its values from saved tensors instead of its initialisers. Nothing is read here: each part is read
 * when its rank puts it on a device, so a rank reads just its shards.
 *
 * @module
 */
import type { TensorReader } from "../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import type { AnyModule } from "../../core/nn/module.ts";
import { sameShape, showShape } from "../../core/tensor/shape.ts";

/**
 * Points every parameter of `model` at its tensor in `reader`.
 *
 * @param nameIn gives the candidates for a parameter's name in the file, best first.
 * @throws CheckpointError that lists every parameter that is missing or has another shape or dtype.
 */
export function takeWeights(
  model: AnyModule,
  reader: TensorReader,
  nameIn: (name: string) => readonly string[] = (name) => [name],
): void {
  const faults: string[] = [];
  for (const [name, parameter] of model.namedParameters()) {
    const stored = nameIn(name).find((candidate) => reader.has(candidate));
    if (stored === undefined) {
      faults.push(`"${name}" is missing`);
      continue;
    }
    const { shape, dtype } = reader.info(stored);
    if (!sameShape(shape, parameter.shape) || dtype !== parameter.dtype) {
      faults.push(
        `"${name}" is ${dtype} ${showShape(shape)}, the model has ${parameter.dtype} ${showShape(parameter.shape)}`,
      );
      continue;
    }
    parameter.initializer = async ({ box, out }) => {
      out.set((await reader.read(stored, box)) as never);
    };
  }
  if (faults.length > 0) throw new CheckpointError(`Loading weights failed: ${faults.join("; ")}`);
}

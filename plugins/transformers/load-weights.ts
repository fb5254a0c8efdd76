/**
 * Lets a model take its values from saved tensors instead of its initialisers. Nothing is read here: each part is read
 * when its rank puts it on a device, so a rank reads just its shards.
 *
 * @module
 */
import type { TensorReader } from "../../core/contracts/checkpointer.ts";
import type { DType, HostArray, StoredArray, StoredDType } from "../../core/contracts/dtype.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import type { AnyModule } from "../../core/nn/module.ts";
import { sameShape, showShape } from "../../core/tensor/shape.ts";

/**
 * Points every parameter of `model` at its tensor in `reader`. Values of 16 bits become float32, which holds them all.
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
    if (!sameShape(shape, parameter.shape) || !holds(parameter.dtype, dtype)) {
      faults.push(
        `"${name}" is ${dtype} ${showShape(shape)}, the model has ${parameter.dtype} ${showShape(parameter.shape)}`,
      );
      continue;
    }
    parameter.initializer = async ({ box, out }) => {
      put(await reader.read(stored, box), dtype, out);
    };
  }
  if (faults.length > 0) throw new CheckpointError(`Loading weights failed: ${faults.join("; ")}`);
}

/** Whether every value of `stored` is one of `dtype`. */
function holds(dtype: DType, stored: StoredDType): boolean {
  return dtype === stored || (dtype === "float32" && (stored === "float16" || stored === "bfloat16"));
}

/** Copies values that `out` holds. */
function put(values: StoredArray, dtype: StoredDType, out: HostArray): void {
  if (dtype !== "bfloat16" || !(out instanceof Float32Array)) {
    (out as Float32Array).set(values as Float32Array);
    return;
  }
  // A bfloat16 is the upper half of a float32.
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = 0; i < bits.length; i++) bits[i] = (values as Uint16Array)[i]! << 16;
}

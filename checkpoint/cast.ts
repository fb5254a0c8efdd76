/**
 * Conversions of saved elements into another floating dtype, as PyTorch's `Tensor.to`: to the nearest value, ties to even.
 *
 * @module
 */
import { hostArray, newHostArray, type StoredArray, type StoredDType } from "../core/contracts/dtype.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import { roundToBfloat16 } from "../core/runtime/half/plain.ts";

const CASTABLE: ReadonlySet<StoredDType> = new Set(["float64", "float32", "float16", "bfloat16"]);

/** Whether elements of one dtype can be converted into another. */
export function isCastable(from: StoredDType, to: StoredDType): boolean {
  return CASTABLE.has(from) && CASTABLE.has(to);
}

/** Elements of `source`, converted. @throws CheckpointError when the dtypes are not castable. */
export function castElements(source: StoredArray, from: StoredDType, to: StoredDType): StoredArray {
  if (!isCastable(from, to)) {
    throw new CheckpointError(
      `cast: from ${from} to ${to}, allowed are ${[...CASTABLE].join(", ")} among each other`,
    );
  }
  const values = from === "bfloat16" ? widen(source as Uint16Array) : (source as Float32Array);
  if (to === "bfloat16") return narrow(Float32Array.from(values));
  const target = newHostArray(to, source.length) as Float32Array;
  target.set(values);
  return target;
}

/** bfloat16 is the upper half of a float32. */
function widen(source: Uint16Array): Float32Array {
  const bits = new Uint32Array(source.length);
  for (let i = 0; i < bits.length; i++) bits[i] = source[i]! << 16;
  return new Float32Array(bits.buffer);
}

function narrow(source: Float32Array): StoredArray {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length);
  const target = new Uint16Array(source.length);
  for (let i = 0; i < bits.length; i++) target[i] = roundToBfloat16(bits[i]!);
  return hostArray("bfloat16", target.buffer, 0, target.length);
}

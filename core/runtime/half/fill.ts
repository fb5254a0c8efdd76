/**
 * Host elements of any dtype, set to a number.
 *
 * @module
 */
import type { DType, HostArray } from "../../contracts/dtype.ts";
import { toBfloat16 } from "./plain.ts";

/** Sets every element to what `Kernels.fill` makes of `value`: integers truncate, booleans are whether it is not 0. */
export function fillElements(elements: HostArray, dtype: DType, value: number): void {
  if (elements instanceof BigInt64Array) elements.fill(BigInt(Math.trunc(value)));
  else if (dtype === "bfloat16") elements.fill(toBfloat16(value));
  else if (dtype === "bool") elements.fill(value === 0 ? 0 : 1);
  else (elements as Float32Array).fill(value);
}

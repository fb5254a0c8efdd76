/**
 * Small helpers over host arrays: what dtype an array holds, windows into it, and raw copies.
 *
 * @module
 */
import { bytesOf, type DType, type HostArray, hostArray } from "../../core/contracts/dtype.ts";

/** The dtype that an array's class stands for; raw 16-bit words count as bfloat16. */
export function dtypeOf(array: HostArray): DType {
  if (array instanceof Float32Array) return "float32";
  if (array instanceof Float64Array) return "float64";
  if (array instanceof Float16Array) return "float16";
  if (array instanceof Uint16Array) return "bfloat16";
  if (array instanceof Int32Array) return "int32";
  if (array instanceof BigInt64Array) return "int64";
  return "uint8";
}

/** A view of elements `[begin, begin + length)` of an array, as `dtype`. Element sizes must agree. */
export function windowOf(array: HostArray, dtype: DType, begin: number, length: number): HostArray {
  return hostArray(dtype, array.buffer, array.byteOffset + begin * array.BYTES_PER_ELEMENT, length);
}

/** Copies bits, whatever the classes; nothing happens when both are the same memory. */
export function copyBytes(target: HostArray, source: HostArray): void {
  if (target.buffer === source.buffer && target.byteOffset === source.byteOffset) return;
  bytesOf(target).set(bytesOf(source));
}

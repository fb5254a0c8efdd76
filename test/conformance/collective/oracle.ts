/**
 * What the collectives must give, stated element by element, and inputs that every rank can compute for all others.
 *
 * @module
 */
import type { ReductionOp } from "../../../core/contracts/collective.ts";
import { bytesOf, type DType, type HostArray, newHostArray } from "../../../core/contracts/dtype.ts";

/** The dtypes of the suite. */
export const SUITE_DTYPES: readonly DType[] = ["float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8"];

/** The reductions. */
export const SUITE_OPS: readonly ReductionOp[] = ["sum", "avg", "max"];

/** `length` elements that depend on `seed` and `rank` alone; values whose sums need rounding. */
export function inputOf(dtype: DType, length: number, seed: number, rank: number): HostArray {
  const array = newHostArray(dtype, length);
  let state = (Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(rank + 1, 0x85ebca6b)) >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    setElement(array, i, dtype, encode(dtype, (state / 2 ** 32 - 0.5) * 200));
  }
  return array;
}

/** The reduction of `inputs`, in rank order. */
export function reduced(inputs: readonly HostArray[], op: ReductionOp, dtype: DType): HostArray {
  const output = newHostArray(dtype, inputs[0]!.length);
  for (let i = 0; i < output.length; i++) {
    const values = inputs.map((input) => decode(dtype, input[i]!));
    setElement(output, i, dtype, encode(dtype, combine(values, op, dtype)));
  }
  return output;
}

/** Arrays one after the other. */
export function concatenated(dtype: DType, arrays: readonly HostArray[]): HostArray {
  const output = newHostArray(dtype, arrays.reduce((sum, array) => sum + array.length, 0));
  let at = 0;
  for (const array of arrays) {
    bytesOf(output).set(bytesOf(array), at);
    at += array.byteLength;
  }
  return output;
}

/** A copy of elements `[begin, begin + length)`. */
export function part(array: HostArray, begin: number, length: number): HostArray {
  return array.slice(begin, begin + length);
}

/** Whether two arrays have the same bytes. */
export function sameBits(a: HostArray, b: HostArray): boolean {
  const x = bytesOf(a);
  const y = bytesOf(b);
  return x.length === y.length && x.every((byte, i) => byte === y[i]);
}

/** FNV-1a over an array's bytes, continuing from `hash`. */
export function digest(array: HostArray, hash = 0x811c9dc5): number {
  let value = hash;
  for (const byte of bytesOf(array)) value = Math.imul(value ^ byte, 0x01000193) >>> 0;
  return value;
}

function combine(values: readonly (number | bigint)[], op: ReductionOp, dtype: DType): number | bigint {
  return values.slice(1).reduce((sum, value) => step(sum, value, op, dtype), values[0]!) as never as number extends never
    ? never
    : number | bigint;
}

function step(a: number | bigint, b: number | bigint, op: ReductionOp, dtype: DType): number | bigint {
  if (op === "max") return a > b ? a : b;
  if (typeof a === "bigint" || typeof b === "bigint") return BigInt(a) + BigInt(b);
  return dtype === "float64" ? a + b : Math.fround(a + b);
}

/**
 * What the collectives must give, stated element by element, and inputs that every rank can compute for all others.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import type { ReductionOp } from "../../../core/contracts/collective.ts";
import { bytesOf, type DType, type HostArray, newHostArray } from "../../../core/contracts/dtype.ts";

/** The dtypes of the suite. */
export const SUITE_DTYPES: readonly DType[] = [
  "float32",
  "float64",
  "float16",
  "bfloat16",
  "int32",
  "int64",
  "uint8",
];

/** The reductions. */
export const SUITE_OPS: readonly ReductionOp[] = ["sum", "avg", "max"];

/** `length` elements that depend on `seed` and `rank` alone; values whose sums need rounding. */
export function inputOf(dtype: DType, length: number, seed: number, rank: number): HostArray {
  const array = newHostArray(dtype, length);
  let state = (Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(rank + 1, 0x85ebca6b)) >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const value = (state / 2 ** 32 - 0.5) * 200;
    store(array, i, dtype, isInteger(dtype) ? BigInt(Math.round(value)) : Math.fround(value));
  }
  return array;
}

/** The reduction of `inputs`, in rank order. */
export function reduced(inputs: readonly HostArray[], op: ReductionOp, dtype: DType): HostArray {
  const output = newHostArray(dtype, inputs[0]!.length);
  for (let i = 0; i < output.length; i++) {
    store(output, i, dtype, reducedElement(inputs, i, op, dtype));
  }
  return output;
}

/** Arrays one after the other. */
export function concatenated(dtype: DType, arrays: readonly HostArray[]): HostArray {
  const output = newHostArray(
    dtype,
    arrays.reduce((sum, array) => sum + array.length, 0),
  );
  let at = 0;
  for (const array of arrays) {
    bytesOf(output).set(bytesOf(array), at);
    at += array.byteLength;
  }
  return output;
}

/** Whether two arrays have the same bytes. */
export function sameBits(a: HostArray, b: HostArray): boolean {
  return Buffer.compare(bytesOf(a), bytesOf(b)) === 0;
}

/** A hash of an array's bytes and what was hashed `before`. */
export function digest(array: HostArray, before: string): string {
  return createHash("sha1").update(before).update(bytesOf(array).slice()).digest("hex");
}

function reducedElement(
  inputs: readonly HostArray[],
  i: number,
  op: ReductionOp,
  dtype: DType,
): number | bigint {
  if (isInteger(dtype)) {
    const values = inputs.map((input) => BigInt(input[i]!));
    if (op === "max") return values.sort((a, b) => (a < b ? 1 : -1))[0]!;
    const sum = wrap(
      dtype,
      values.reduce((a, b) => a + b),
    );
    return op === "avg" ? sum / BigInt(inputs.length) : sum;
  }
  const round = dtype === "float64" ? (x: number): number => x : Math.fround;
  const values = inputs.map((input) => decodeFloat(dtype, input[i] as number));
  if (op === "max") return Math.max(...values);
  const sum = values.reduce((a, b) => round(a + b));
  return op === "avg" ? round(sum / inputs.length) : sum;
}

function isInteger(dtype: DType): boolean {
  return dtype === "int32" || dtype === "int64" || dtype === "uint8";
}

function wrap(dtype: DType, value: bigint): bigint {
  if (dtype === "uint8") return BigInt.asUintN(8, value);
  return BigInt.asIntN(dtype === "int32" ? 32 : 64, value);
}

function store(array: HostArray, i: number, dtype: DType, value: number | bigint): void {
  if (array instanceof BigInt64Array) array[i] = BigInt(value);
  else array[i] = dtype === "bfloat16" ? nearestBFloat16(Number(value)) : Number(value);
}

function decodeFloat(dtype: DType, stored: number): number {
  return dtype === "bfloat16" ? fromBits(stored * 65536) : stored;
}

/** The nearer of the two bfloat16 around a float32, by their distances; the even one of equally near. */
function nearestBFloat16(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer)[0]!;
  const down = bits >>> 16;
  const below = Math.abs(value - fromBits(down * 65536));
  const above = Math.abs(fromBits((down + 1) * 65536) - value);
  if (below === above) return down + (down & 1);
  return below < above ? down : down + 1;
}

function fromBits(bits: number): number {
  return new Float32Array(Uint32Array.of(bits).buffer)[0]!;
}

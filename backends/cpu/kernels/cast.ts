/**
 * Conversion between dtypes, in plain TypeScript.
 *
 * Floats round to nearest even; float64 goes to bfloat16 by way of float32, as in PyTorch. Float to integer truncates
 * (not a number and infinities give 0, out-of-range values wrap), and to bool is `!= 0`.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { HostArray } from "../../../core/contracts/dtype.ts";
import { ShapeError } from "../../../core/contracts/errors.ts";
import { roundToBfloat16, toBfloat16 } from "../../../core/runtime/half/plain.ts";
import type { Heap } from "./heap.ts";

/** See `Kernels.cast`. */
export function cast(heap: Heap, source: Span, target: Span): void {
  if (source.length !== target.length) {
    throw new ShapeError(`cpu cast: ${source.length} elements were given for ${target.length}`);
  }
  const from = heap.view(source);
  const to = heap.view(target);
  if (source.dtype === target.dtype) (to as Uint8Array).set(from as Uint8Array);
  else if (source.dtype === "bfloat16") fromBfloat16(from as Uint16Array, target, to);
  else convert(from, target, to);
}

/** Elements converted at a time where an array in between is needed. */
const CHUNK = 4096;

function fromBfloat16(from: Uint16Array, target: Span, to: HostArray): void {
  const bits = new Uint32Array(Math.min(CHUNK, from.length));
  const values = new Float32Array(bits.buffer);
  for (let begin = 0; begin < from.length; begin += CHUNK) {
    const count = Math.min(CHUNK, from.length - begin);
    for (let i = 0; i < count; i++) bits[i] = from[begin + i]! << 16;
    convert(values.subarray(0, count), target, to.subarray(begin, begin + count));
  }
}

function convert(from: HostArray, target: Span, to: HostArray): void {
  if (target.dtype === "bfloat16") intoBfloat16(from, to as Uint16Array);
  else if (target.dtype === "bool")
    for (let i = 0; i < to.length; i++) to[i] = Number(from[i]!) === 0 ? 0 : 1;
  else if (to instanceof BigInt64Array) for (let i = 0; i < to.length; i++) to[i] = integer(Number(from[i]!));
  else if (from instanceof BigInt64Array) for (let i = 0; i < to.length; i++) to[i] = Number(from[i]!);
  else (to as Float32Array).set(from as Float32Array);
}

function integer(value: number): bigint {
  return Number.isFinite(value) ? BigInt(Math.trunc(value)) : 0n;
}

function intoBfloat16(from: HostArray, to: Uint16Array): void {
  if (from instanceof Float32Array) {
    const bits = new Uint32Array(from.buffer, from.byteOffset, from.length);
    for (let i = 0; i < to.length; i++) to[i] = roundToBfloat16(bits[i]!);
  } else {
    for (let i = 0; i < to.length; i++) to[i] = toBfloat16(Number(from[i]!));
  }
}

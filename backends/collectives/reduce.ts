/**
 * Elementwise reduction over ranks, always in rank order: `((x0 + x1) + x2) + ...`, so that a result depends on
 * nothing but its inputs. 16-bit floats accumulate in float32 and are rounded once, at the end.
 *
 * Works in tiles that stay in cache: one pass over memory whatever the number of ranks, and the output may be one of
 * the inputs.
 *
 * @module
 */
import type { ReductionOp } from "../../core/contracts/collective.ts";
import type { DType, HostArray } from "../../core/contracts/dtype.ts";
import { windowOf } from "./elements.ts";

/** Elements per tile: 64 KiB of float32. */
const TILE = 16384;

/** Types whose elements combine as JavaScript numbers in their own precision. */
type NumberArray = Float64Array | Int32Array | Uint8Array;

const accumulator = new Float32Array(TILE);
const accumulatorBits = new Int32Array(accumulator.buffer);
const widened = new Float32Array(TILE);
const widenedBits = new Int32Array(widened.buffer);

/**
 * `output[i] = op over r of inputs[r][i]`. All arrays have the same length and elements of `dtype`; `output` may be
 * exactly one of the inputs. Integers wrap, and their average truncates; the sum of bools is their union.
 */
export function reduceInto(
  output: HostArray,
  inputs: readonly HostArray[],
  op: ReductionOp,
  dtype: DType,
): void {
  const views = inputs.map((input) => windowOf(input, dtype, 0, output.length));
  const out = windowOf(output, dtype, 0, output.length);
  if (dtype === "float32") {
    reduceFloat32(out as Float32Array, views as Float32Array[], op);
  } else if (dtype === "float16" || dtype === "bfloat16") {
    reduceHalf(out as Float16Array | Uint16Array, views as (Float16Array | Uint16Array)[], op);
  } else if (dtype === "int64") {
    reduceInt64(out as BigInt64Array, views as BigInt64Array[], op);
  } else {
    reduceNumbers(out as NumberArray, views as NumberArray[], dtype === "bool" ? "max" : op);
  }
}

function reduceFloat32(out: Float32Array, inputs: readonly Float32Array[], op: ReductionOp): void {
  for (let begin = 0; begin < out.length; begin += TILE) {
    const length = Math.min(TILE, out.length - begin);
    accumulator.set(inputs[0]!.subarray(begin, begin + length));
    for (let r = 1; r < inputs.length; r++) combineFloat32(inputs[r]!, begin, length, op);
    if (op === "avg") divideFloat32(length, inputs.length);
    out.set(length === TILE ? accumulator : accumulator.subarray(0, length), begin);
  }
}

function reduceHalf(
  out: Float16Array | Uint16Array,
  inputs: readonly (Float16Array | Uint16Array)[],
  op: ReductionOp,
): void {
  for (let begin = 0; begin < out.length; begin += TILE) {
    const length = Math.min(TILE, out.length - begin);
    widen(inputs[0]!, begin, length, accumulator, accumulatorBits);
    for (let r = 1; r < inputs.length; r++) {
      widen(inputs[r]!, begin, length, widened, widenedBits);
      combineFloat32(widened, 0, length, op);
    }
    if (op === "avg") divideFloat32(length, inputs.length);
    if (out instanceof Uint16Array) narrowBFloat16(out, begin, length);
    else out.set(accumulator.subarray(0, length), begin);
  }
}

// The float32 loops see one array class only, which keeps them compiled for it.
function combineFloat32(x: Float32Array, begin: number, length: number, op: ReductionOp): void {
  const acc = accumulator;
  if (op === "max") {
    for (let i = 0; i < length; i++) acc[i] = Math.max(acc[i]!, x[begin + i]!);
  } else {
    for (let i = 0; i < length; i++) acc[i]! += x[begin + i]!;
  }
}

function divideFloat32(length: number, divisor: number): void {
  const acc = accumulator;
  for (let i = 0; i < length; i++) acc[i]! /= divisor;
}

function widen(
  x: Float16Array | Uint16Array,
  begin: number,
  length: number,
  target: Float32Array,
  targetBits: Int32Array,
): void {
  if (x instanceof Uint16Array) {
    for (let i = 0; i < length; i++) targetBits[i] = x[begin + i]! << 16;
  } else {
    target.set(x.subarray(begin, begin + length));
  }
}

/** Rounds the accumulator to nearest, ties to even; a NaN stays one. */
function narrowBFloat16(out: Uint16Array, begin: number, length: number): void {
  const bits = accumulatorBits;
  for (let i = 0; i < length; i++) {
    const word = bits[i]!;
    const notANumber = (word & 0x7fffffff) > 0x7f800000;
    out[begin + i] = notANumber ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
}

function reduceNumbers(out: NumberArray, inputs: readonly NumberArray[], op: ReductionOp): void {
  const first = inputs[0]!;
  const acc = first.slice(0, Math.min(TILE, first.length));
  for (let begin = 0; begin < out.length; begin += TILE) {
    const length = Math.min(TILE, out.length - begin);
    acc.set(first.subarray(begin, begin + length));
    for (let r = 1; r < inputs.length; r++) {
      const x = inputs[r]!;
      if (op === "max") {
        for (let i = 0; i < length; i++) acc[i] = Math.max(acc[i]!, x[begin + i]!);
      } else {
        for (let i = 0; i < length; i++) acc[i]! += x[begin + i]!;
      }
    }
    // Integer arrays truncate what is stored into them.
    if (op === "avg") for (let i = 0; i < length; i++) acc[i]! /= inputs.length;
    out.set(acc.subarray(0, length), begin);
  }
}

function reduceInt64(out: BigInt64Array, inputs: readonly BigInt64Array[], op: ReductionOp): void {
  const size = BigInt(inputs.length);
  for (let i = 0; i < out.length; i++) {
    let value = inputs[0]![i]!;
    for (let r = 1; r < inputs.length; r++) {
      const x = inputs[r]![i]!;
      if (op !== "max") value = BigInt.asIntN(64, value + x);
      else if (x > value) value = x;
    }
    out[i] = op === "avg" ? value / size : value;
  }
}

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
import { isHalf } from "../../core/runtime/half/plain.ts";
import { windowOf } from "./elements.ts";
import { reduceFloats } from "./reduce-float.ts";

/** Elements per tile: 64 KiB of float32. */
const TILE = 16384;

/** Types whose elements combine as JavaScript numbers in their own precision. */
type NumberArray = Float64Array | Int32Array | Uint8Array;

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
  if (dtype === "float32" || isHalf(dtype)) {
    reduceFloats(dtype, out, views, op);
  } else if (dtype === "int64") {
    reduceInt64(out as BigInt64Array, views as BigInt64Array[], op);
  } else {
    reduceNumbers(out as NumberArray, views as NumberArray[], dtype === "bool" ? "max" : op);
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

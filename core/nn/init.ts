/**
 * Initialisers: initial values by element, so that any part of a parameter can be made alone and the weights do not
 * depend on how many ranks there are.
 *
 * @module
 */
import type { HostArray } from "../contracts/dtype.ts";
import { ShapeError } from "../contracts/errors.ts";
import type { Box } from "../contracts/shard.ts";
import { randomNormal, randomUniform } from "../tensor/random.ts";
import { numelOf, type Shape, stridesOf } from "../tensor/shape.ts";
import type { Initializer, InitRequest } from "./parameter.ts";

/** Calls `visit(start, offset, length)` for every contiguous run of `box` in a row-major tensor of `shape`; `offset` counts the box's elements. */
export function forEachRun(
  shape: Shape,
  box: Box,
  visit: (start: number, offset: number, length: number) => void,
): void {
  const total = numelOf(box.sizes);
  if (total === 0) return;
  const strides = stridesOf(shape);
  // Trailing dims that the box covers whole belong to one run.
  let split = shape.length;
  while (split > 0 && box.sizes[split - 1] === shape[split - 1]) split--;
  const length = numelOf(box.sizes.slice(Math.max(split - 1, 0)));
  const outer = Math.max(split - 1, 0);
  const index = new Array<number>(outer).fill(0);
  const base = box.offsets.reduce((sum, offset, d) => sum + offset * strides[d]!, 0);
  for (let offset = 0; offset < total; offset += length) {
    visit(
      index.reduce((sum, i, d) => sum + i * strides[d]!, base),
      offset,
      length,
    );
    for (let d = outer - 1; d >= 0; d--) {
      index[d] = index[d]! + 1;
      if (index[d]! < box.sizes[d]!) break;
      index[d] = 0;
    }
  }
}

/** Draws into 32- or 64-bit floats, whatever the parameter's dtype can hold directly. */
function floats(out: HostArray, name: string): Float32Array | Float64Array {
  if (out instanceof Float32Array || out instanceof Float64Array) return out;
  throw new ShapeError(`Initial values of "${name}" failed: random values need dtype "float32" or "float64"`);
}

function byRun(request: InitRequest, draw: (start: number, out: Float32Array | Float64Array) => void): void {
  const out = floats(request.out, request.name);
  forEachRun(request.shape, request.box, (start, offset, length) =>
    draw(start, out.subarray(offset, offset + length)),
  );
}

/** Every element `value`. */
export function constant(value: number): Initializer {
  return ({ out, name }) => {
    floats(out, name).fill(value);
  };
}

/** Normal values of this mean and standard deviation. */
export function normal(std: number, mean = 0): Initializer {
  return (request) =>
    byRun(request, (start, out) => {
      randomNormal(request.key, start, out);
      for (let i = 0; i < out.length; i++) out[i] = out[i]! * std + mean;
    });
}

/** Uniform values in [-bound, bound). */
export function uniform(bound: number): Initializer {
  return (request) =>
    byRun(request, (start, out) => {
      randomUniform(request.key, start, out);
      for (let i = 0; i < out.length; i++) out[i] = (out[i]! * 2 - 1) * bound;
    });
}

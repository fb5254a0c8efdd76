/**
 * Copies of boxes between spans, many in one dispatch: their places travel in a table beside the parameters.
 *
 * @module
 */

import type { Span } from "../../../core/contracts/backend.ts";
import { DTYPES } from "../../../core/contracts/dtype.ts";
import { ShapeError } from "../../../core/contracts/errors.ts";
import type { CopyBox } from "../../../core/contracts/kernels.ts";
import { numelOf } from "../../../core/tensor/shape.ts";
import { MAX_GRID } from "../constants.ts";
import type { Gpu } from "../dispatch.ts";
import { floatType, part, unitsPerBinding } from "../spans.ts";
import { inSlabs, merge, reach, requireWithin, type Space } from "../strides.ts";
import { addSource, BYTES_WORKGROUP, boxRows, type CopyUnit, copySource, MAX_BOXES } from "../wgsl/bytes.ts";
import type { KernelSource } from "../wgsl/source.ts";

/** A box after merging, in elements. */
interface Box {
  readonly space: Space;
  readonly source: number;
  readonly target: number;
}

/** Boxes of one rank, checked. */
interface Plan {
  readonly sourceLength: number;
  readonly targetLength: number;
  /** By rank. */
  readonly groups: readonly (readonly Box[])[];
  /** Largest power of two that divides every offset, size and stride, up to 16: what may be moved at a time. */
  readonly divisor: number;
}

/** Plans by the identity of their boxes: a unit moves with the same ones every step. */
const plans = new WeakMap<readonly CopyBox[], Plan>();

/** See `Kernels.copy`. */
export function copy(
  gpu: Gpu,
  source: Span,
  target: Span,
  boxes: readonly CopyBox[],
  accumulate: boolean,
): void {
  if (source.dtype !== target.dtype) {
    throw new ShapeError(
      `webgpu copy: ${source.dtype} was given for a ${target.dtype} target, allowed: the same dtype`,
    );
  }
  const plan = planOf(source, target, boxes);
  const most = unitsPerBinding(gpu, DTYPES[source.dtype].bytes);
  for (const group of plan.groups) {
    if (source.length <= most && target.length <= most) {
      for (let first = 0; first < group.length; first += MAX_BOXES) {
        move(gpu, source, target, group.slice(first, first + MAX_BOXES), plan.divisor, accumulate);
      }
      continue;
    }
    for (const box of group) moveInSlabs(gpu, source, target, box, plan.divisor, accumulate);
  }
}

/** Copies the bits of one contiguous span to another of the same byte length and dtype. */
export function copyRaw(gpu: Gpu, source: Span, target: Span): void {
  const box = {
    sizes: [source.length],
    sourceOffset: 0,
    sourceStrides: [1],
    targetOffset: 0,
    targetStrides: [1],
  };
  copy(gpu, source, target, [box], false);
}

function planOf(source: Span, target: Span, boxes: readonly CopyBox[]): Plan {
  const known = plans.get(boxes);
  if (known !== undefined && source.length >= known.sourceLength && target.length >= known.targetLength) {
    return known;
  }
  const groups: Box[][] = [];
  let divisor = 16;
  let [sourceLength, targetLength] = [0, 0];
  for (const box of boxes) {
    requireWithin("copy source", source, box.sourceOffset, box.sizes, box.sourceStrides);
    requireWithin("copy target", target, box.targetOffset, box.sizes, box.targetStrides);
    if (box.sizes.includes(0)) continue;
    const space = merge(box.sizes, [box.sourceStrides, box.targetStrides]);
    const merged = { space, source: box.sourceOffset, target: box.targetOffset };
    groups[space.sizes.length] ??= [];
    groups[space.sizes.length]!.push(merged);
    divisor = Math.min(divisor, divisorOf(merged));
    sourceLength = Math.max(sourceLength, box.sourceOffset + reach(box.sizes, box.sourceStrides));
    targetLength = Math.max(targetLength, box.targetOffset + reach(box.sizes, box.targetStrides));
  }
  // Sparse by rank.
  const plan = { sourceLength, targetLength, groups: groups.filter((group) => group !== undefined), divisor };
  plans.set(boxes, plan);
  return plan;
}

/** Elements that may be moved at a time: runs are contiguous on both sides, and begin and end at multiples of it. */
function divisorOf({ space, source, target }: Box): number {
  const inner = space.sizes.length - 1;
  if (space.strides.some((strides) => strides[inner] !== 1)) return 1;
  const outer = space.strides.flatMap((strides) => strides.slice(0, inner));
  return powerOfTwo([source, target, space.sizes[inner]!, ...outer]);
}

/** The largest power of two up to 16 that divides all. */
function powerOfTwo(values: readonly number[]): number {
  let divisor = 16;
  while (values.some((value) => value % divisor !== 0)) divisor /= 2;
  return divisor;
}

/** Boxes of one rank in one dispatch. */
function move(
  gpu: Gpu,
  source: Span,
  target: Span,
  boxes: readonly Box[],
  divisor: number,
  accumulate: boolean,
): void {
  const { bytes } = DTYPES[source.dtype];
  const rank = boxes[0]!.space.sizes.length;
  const aligned = Math.min(divisor, powerOfTwo([source.offset, target.offset]));
  const capacity = 2 ** Math.ceil(Math.log2(boxes.length));
  let kernel: KernelSource;
  let unit: number;
  if (accumulate) {
    const type = floatType(gpu, "copy", source);
    unit = aligned >= 4 ? 4 : 1;
    kernel = addSource(type, unit === 4, rank, capacity);
  } else {
    const unitBytes = Math.min(16, aligned * bytes) as CopyUnit;
    unit = unitBytes / bytes;
    kernel = copySource(unitBytes, rank, capacity);
  }
  const table = new Uint32Array(4 * boxRows(rank) * boxes.length);
  let largest = 0;
  for (const [i, box] of boxes.entries()) {
    const count = writeBox(table, 4 * boxRows(rank) * i, box, unit);
    largest = Math.max(largest, count);
  }
  const skip = unitsBefore(source, unit * bytes);
  const shift = unitsBefore(target, unit * bytes);
  const groups = Math.min(MAX_GRID, Math.ceil(largest / BYTES_WORKGROUP));
  gpu.dispatch(kernel, [source, target], { skip, shift }, [groups, boxes.length, 1], table);
}

/** Units of the span's first word that lie before it. */
function unitsBefore(span: Span, unitBytes: number): number {
  return unitBytes < 4 ? ((span.offset * DTYPES[span.dtype].bytes) % 4) / unitBytes : 0;
}

/** Writes a box in units of `unit` elements; gives the number of units in it. */
function writeBox(table: Uint32Array, at: number, { space, source, target }: Box, unit: number): number {
  const rank = space.sizes.length;
  const sizes = space.sizes.with(rank - 1, space.sizes[rank - 1]! / unit);
  const strides = space.strides.map((of) => of.map((stride, d) => (d === rank - 1 ? stride : stride / unit)));
  const count = numelOf(sizes);
  table.set([count, source / unit, target / unit, ...sizes, ...strides.flat()], at);
  return count;
}

/** One box of spans larger than a binding, in pieces that fit. */
function moveInSlabs(
  gpu: Gpu,
  source: Span,
  target: Span,
  box: Box,
  divisor: number,
  accumulate: boolean,
): void {
  const spans = [
    part(source, box.source, source.length - box.source),
    part(target, box.target, target.length - box.target),
  ];
  inSlabs(gpu, box.space, spans, DTYPES[source.dtype].bytes, (space, [from, to]) => {
    const piece = { space, source: 0, target: 0 };
    move(gpu, from!, to!, [piece], Math.min(divisor, divisorOf(piece)), accumulate);
  });
}

/**
 * Box copies between spans, in plain TypeScript. Runs that are contiguous on both sides go through `TypedArray.set`,
 * which is the engine's memmove.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { HostArray } from "../../../core/contracts/dtype.ts";
import { ShapeError } from "../../../core/contracts/errors.ts";
import type { CopyBox } from "../../../core/contracts/kernels.ts";
import { type Floats, floats, type Heap } from "./heap.ts";
import { collapse, forEachRow, requireWithin } from "./strides.ts";

/** Shorter runs are copied by a loop: making the sub-array costs more. */
const SHORT_RUN = 32;

/** See `Kernels.copy`. */
export function copy(
  heap: Heap,
  source: Span,
  target: Span,
  boxes: readonly CopyBox[],
  accumulate: boolean,
): void {
  if (source.dtype !== target.dtype) {
    throw new ShapeError(
      `cpu copy: ${source.dtype} was given for a ${target.dtype} target, allowed: the same dtype`,
    );
  }
  if (accumulate) {
    const from = floats(heap, "copy", source);
    const to = floats(heap, "copy", target);
    for (const box of boxes) accumulateBox(source, target, from, to, box);
    return;
  }
  const from = heap.view(source);
  const to = heap.view(target);
  for (const box of boxes) copyBox(source, target, from, to, box);
}

function loopOf(source: Span, target: Span, box: CopyBox): ReturnType<typeof collapse> {
  requireWithin("copy source", source, box.sourceOffset, box.sizes, box.sourceStrides);
  requireWithin("copy target", target, box.targetOffset, box.sizes, box.targetStrides);
  return collapse(box.sizes, [box.sourceStrides, box.targetStrides]);
}

function copyBox(source: Span, target: Span, from: HostArray, to: HostArray, box: CopyBox): void {
  const loop = loopOf(source, target, box);
  const length = loop.length;
  const [strideS, strideT] = loop.strides as [number, number];
  const whole = strideS === 1 && strideT === 1 && length >= SHORT_RUN;
  forEachRow(loop, ([s, t]) => {
    const p = box.sourceOffset + s!;
    const q = box.targetOffset + t!;
    // Same dtype, hence same kind of array: `set` copies bytes.
    if (whole) (to as Uint8Array).set((from as Uint8Array).subarray(p, p + length), q);
    else for (let i = 0; i < length; i++) to[q + i * strideT] = from[p + i * strideS]!;
  });
}

function accumulateBox(source: Span, target: Span, from: Floats, to: Floats, box: CopyBox): void {
  const loop = loopOf(source, target, box);
  const [strideS, strideT] = loop.strides as [number, number];
  forEachRow(loop, ([s, t]) => {
    const p = box.sourceOffset + s!;
    const q = box.targetOffset + t!;
    for (let i = 0; i < loop.length; i++) to[q + i * strideT]! += from[p + i * strideS]!;
  });
}

/**
 * Strided iteration spaces: checked, and with dimensions that lie behind each other in every operand made one.
 *
 * @module
 */
import type { Span } from "../../core/contracts/backend.ts";
import { ShapeError } from "../../core/contracts/errors.ts";
import { type IterationSpace, mergeDims, numelOf } from "../../core/tensor/shape.ts";
import type { Gpu } from "./dispatch.ts";
import { part, unitsPerBinding } from "./spans.ts";

/** An iteration space after merging. */
export type Space = IterationSpace;

/** Merges dimensions and drops those of extent 1; at least one is left. */
export function merge(sizes: readonly number[], strides: readonly (readonly number[])[]): Space {
  const merged = mergeDims(sizes, strides);
  return merged.sizes.length > 0 ? merged : { sizes: [1], strides: strides.map(() => [1]) };
}

/** Elements from the first to behind the last that an iteration space touches. */
export function reach(sizes: readonly number[], strides: readonly number[]): number {
  return sizes.reduce((last, size, d) => last + (size - 1) * strides[d]!, 1);
}

/** @throws ShapeError when an index of the iteration space falls outside the span. */
export function requireWithin(
  kernel: string,
  span: Span,
  offset: number,
  sizes: readonly number[],
  strides: readonly number[],
): void {
  if (sizes.includes(0)) return;
  const whole = [offset, ...sizes, ...strides].every((value) => Number.isInteger(value) && value >= 0);
  if (!whole || sizes.length !== strides.length || offset + reach(sizes, strides) > span.length) {
    throw new ShapeError(
      `webgpu ${kernel}: sizes [${sizes}] with strides [${strides}] from ${offset} do not lie in ${span.length} elements`,
    );
  }
}

/**
 * Cuts an iteration space along its first dimensions so that what each piece touches fits a binding, and calls `work`
 * with the piece, its operands' spans, and which elements of the whole space, in row-major order, it has.
 */
export function inSlabs(
  gpu: Gpu,
  space: Space,
  spans: readonly Span[],
  elementBytes: number,
  work: (space: Space, spans: readonly Span[], start: number, count: number) => void,
): void {
  const { sizes, strides } = space;
  const [first, ...rest] = sizes as [number, ...number[]];
  const inner = numelOf(rest);
  const touched = Math.max(first * inner, ...strides.map((s) => reach(sizes, s)));
  if (touched <= unitsPerBinding(gpu, elementBytes)) {
    const parts = spans.map((span, i) => part(span, 0, reach(sizes, strides[i]!)));
    work(space, parts, 0, first * inner);
  } else if (first === 1) {
    inSlabs(gpu, { sizes: rest, strides: strides.map((s) => s.slice(1)) }, spans, elementBytes, work);
  } else {
    const half = Math.floor(first / 2);
    for (const [begin, rows] of [[0, half] as const, [half, first - half] as const]) {
      const parts = spans.map((span, i) => {
        const start = begin * strides[i]![0]!;
        return part(span, start, span.length - start);
      });
      const slab = { sizes: [rows, ...rest], strides };
      inSlabs(gpu, slab, parts, elementBytes, (piece, pieceSpans, start, count) =>
        work(piece, pieceSpans, begin * inner + start, count),
      );
    }
  }
}

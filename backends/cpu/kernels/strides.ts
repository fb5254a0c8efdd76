/**
 * Iteration over strided operands: dimensions that lie behind each other in every operand become one, and the rest is
 * walked row by row, the innermost loop being the kernel's own.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import { ShapeError } from "../../../core/contracts/errors.ts";
import { mergeDims } from "../../../core/tensor/shape.ts";

/** An iteration space after collapsing. */
export interface StridedLoop {
  /** Extents of the outer dimensions. */
  readonly outer: readonly number[];
  /** Per operand, strides of the outer dimensions. */
  readonly outerStrides: readonly (readonly number[])[];
  /** Extent of the innermost dimension. */
  readonly length: number;
  /** Per operand, its stride. */
  readonly strides: readonly number[];
}

/** Merges dimensions and drops those of extent 1. */
export function collapse(sizes: readonly number[], strides: readonly (readonly number[])[]): StridedLoop {
  const merged = mergeDims(sizes, strides);
  return {
    outer: merged.sizes.slice(0, -1),
    outerStrides: merged.strides.map((s) => s.slice(0, -1)),
    length: merged.sizes.at(-1) ?? 1,
    strides: merged.strides.map((s) => s.at(-1) ?? 1),
  };
}

/** Calls `row` with each operand's first element of every innermost row, in row-major order. */
export function forEachRow(loop: StridedLoop, row: (starts: readonly number[]) => void): void {
  const { outer, outerStrides } = loop;
  const starts = outerStrides.map(() => 0);
  const index = outer.map(() => 0);
  if (loop.length === 0 || outer.includes(0)) return;
  for (;;) {
    row(starts);
    let d = outer.length - 1;
    for (; d >= 0; d--) {
      index[d]! += 1;
      for (let n = 0; n < starts.length; n++) starts[n]! += outerStrides[n]![d]!;
      if (index[d]! < outer[d]!) break;
      for (let n = 0; n < starts.length; n++) starts[n]! -= outerStrides[n]![d]! * outer[d]!;
      index[d] = 0;
    }
    if (d < 0) return;
  }
}

/** @throws ShapeError when an index of the iteration space falls outside the span. */
export function requireWithin(
  kernel: string,
  span: Span,
  offset: number,
  sizes: readonly number[],
  strides: readonly number[],
): void {
  let last = offset;
  for (const [d, size] of sizes.entries()) {
    if (size === 0) return;
    last += (size - 1) * strides[d]!;
  }
  if (offset < 0 || last >= span.length || strides.some((stride) => !(stride >= 0))) {
    throw new ShapeError(
      `cpu ${kernel}: sizes [${sizes}] with strides [${strides}] from ${offset} do not lie in ${span.length} elements`,
    );
  }
}

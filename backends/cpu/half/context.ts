/**
 * How 16-bit floats are computed with: tiles of the operands are widened to float32 in a workspace, the float32 kernel
 * runs there, and what it gives is rounded once on the way back.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { DType } from "../../../core/contracts/dtype.ts";
import { ShapeError } from "../../../core/contracts/errors.ts";
import { type HalfConverter, type HalfDType, isHalf } from "../../../core/runtime/half/plain.ts";
import type { Heap } from "../kernels/heap.ts";
import type { CpuKernels } from "../kernels/plain.ts";

/** How much is widened at a time. What is computed does not depend on it, beyond the order of sums. */
export interface HalfSizes {
  /** Elements of an operand, unless one row has more. A multiple of 4. */
  readonly tile: number;
  /** Rows, columns and depth of a block of a matrix product. */
  readonly block: number;
  /** Elements of a band of columns of an embedding's gradient and table, and the fewest columns of a band. */
  readonly band: number;
  readonly bandColumns: number;
}

/** In float32: tiles of 64 KiB, blocks and bands of 4 MiB; columns of two cache lines. */
export const HALF_SIZES: HalfSizes = { tile: 2 ** 14, block: 2 ** 10, band: 2 ** 20, bandColumns: 32 };

/** What the kernels of this folder work with. */
export interface HalfContext {
  readonly heap: Heap;
  /** The kernels that compute in float32. */
  readonly float32: CpuKernels;
  readonly converter: HalfConverter;
  readonly sizes: HalfSizes;
}

/** Float32 spans of these lengths in the workspace, each on a cache line of its own. */
export function workspaces(heap: Heap, lengths: readonly number[]): Span[] {
  const sizes = lengths.map((length) => Math.ceil(length / 16) * 16);
  const whole = heap.workspace(sizes.reduce((sum, size) => sum + size, 0));
  let offset = 0;
  return lengths.map((length, i) => {
    const span = { ...whole, offset, length };
    offset += sizes[i]!;
    return span;
  });
}

/** `length` elements of a span, from its element `first` on. */
export function part(span: Span, first: number, length: number): Span {
  return { ...span, offset: span.offset + first, length };
}

/** Whether any of the spans has 16-bit floats. */
export function anyHalf(...spans: readonly (Span | undefined)[]): boolean {
  return spans.some((span) => span !== undefined && isHalf(span.dtype));
}

/** Float32, row after row, from `rows` x `columns` 16-bit floats whose rows are `stride` elements apart. */
export function widen(
  { heap, converter }: HalfContext,
  from: Span,
  to: Span,
  rows: number,
  columns: number,
  stride: number = columns,
): void {
  if (rows * columns === 0) return;
  const dtype = from.dtype as HalfDType;
  converter.widenRows(dtype, heap.address(from), stride, heap.address(to), columns, rows, columns);
}

/** `rows` x `columns` 16-bit floats whose rows are `stride` elements apart from float32, row after row. */
export function narrow(
  { heap, converter }: HalfContext,
  from: Span,
  to: Span,
  rows: number,
  columns: number,
  stride: number = columns,
): void {
  if (rows * columns === 0) return;
  const dtype = to.dtype as HalfDType;
  converter.narrowRows(dtype, heap.address(from), columns, heap.address(to), stride, rows, columns);
}

/** The one 16-bit dtype among the spans, beside which float32 may stand. @throws ShapeError when there are others. */
export function commonHalf(kernel: string, spans: readonly Span[]): HalfDType {
  let found: HalfDType | undefined;
  for (const { dtype } of spans) {
    if (isHalf(dtype) && (found === undefined || found === dtype)) found = dtype;
    else if (dtype !== "float32") throw mixed(kernel, spans);
  }
  if (found === undefined) throw mixed(kernel, spans);
  return found;
}

/** @throws ShapeError unless every span has this dtype. */
export function requireDType(kernel: string, dtype: DType, spans: readonly Span[]): void {
  if (spans.some((span) => span.dtype !== dtype)) throw mixed(kernel, spans);
}

function mixed(kernel: string, spans: readonly Span[]): ShapeError {
  const given = [...new Set(spans.map(({ dtype }) => dtype))].join(" and ");
  return new ShapeError(
    `cpu ${kernel}: operands are ${given}, allowed: one 16-bit float dtype, and float32 for statistics`,
  );
}

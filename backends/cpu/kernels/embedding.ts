/**
 * Table lookup and its gradient, in plain TypeScript.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import { ShapeError } from "../../../core/contracts/errors.ts";
import { elements, floats, floatsOf, type Heap, indices, requireLength } from "./heap.ts";

/** See `Kernels.embedding`. `rows` is the number of indices. */
export function embedding(
  heap: Heap,
  table: Span,
  index: Span,
  out: Span,
  rows: number,
  columns: number,
): void {
  if (table.dtype !== out.dtype) {
    throw new ShapeError(
      `cpu embedding: a ${table.dtype} table was given for a ${out.dtype} result, allowed: one dtype`,
    );
  }
  requireLength("embedding", out, rows * columns);
  const source = elements(heap, "embedding", table);
  const target = elements(heap, "embedding", out);
  const chosen = checkedIndices(heap, "embedding", table, index, rows, columns);
  for (let row = 0; row < rows; row++) {
    const from = chosen[row]! * columns;
    const to = row * columns;
    for (let i = 0; i < columns; i++) target[to + i] = source[from + i]!;
  }
}

/** See `Kernels.embeddingBackward`. `rows` is the number of indices. */
export function embeddingBackward(
  heap: Heap,
  gradient: Span,
  index: Span,
  dTable: Span,
  rows: number,
  columns: number,
): void {
  const source = floatsOf(heap, "embedding backward", gradient, rows * columns);
  const target = floats(heap, "embedding backward", dTable);
  const chosen = checkedIndices(heap, "embedding backward", dTable, index, rows, columns);
  target.fill(0);
  for (let row = 0; row < rows; row++) {
    const from = row * columns;
    const to = chosen[row]! * columns;
    for (let i = 0; i < columns; i++) target[to + i]! += source[from + i]!;
  }
}

function checkedIndices(
  heap: Heap,
  kernel: string,
  table: Span,
  index: Span,
  rows: number,
  columns: number,
): Int32Array | number[] {
  const chosen = indices(heap, kernel, index, rows);
  const tableRows = columns === 0 ? Number.POSITIVE_INFINITY : Math.floor(table.length / columns);
  for (let row = 0; row < rows; row++) {
    const at = chosen[row]!;
    if (at >= 0 && at < tableRows) continue;
    throw new ShapeError(
      `cpu ${kernel}: index ${at} at position ${row} is outside the table of ${tableRows} rows`,
    );
  }
  return chosen;
}

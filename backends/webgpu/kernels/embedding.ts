/**
 * Table lookup and its gradient.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { Gpu } from "../dispatch.ts";
import { commonType, indexIsLong, leadOf, part, requireLength } from "../spans.ts";
import { EMBEDDING_WORKGROUP, embeddingBackwardSource, embeddingSource } from "../wgsl/embedding.ts";
import { fill } from "./fill.ts";
import { rowsPerBinding } from "./rows.ts";

/** See `Kernels.embedding`. The device cannot throw: an index outside the table gives a row of NaN. */
export function embedding(
  gpu: Gpu,
  table: Span,
  indices: Span,
  out: Span,
  rows: number,
  columns: number,
): void {
  const type = commonType(gpu, "embedding", [table, out]);
  const long = indexIsLong("embedding", indices);
  requireLength("embedding", indices, rows);
  requireLength("embedding", out, rows * columns);
  if (columns === 0) return;
  const wide = isWide([table, out], columns);
  const vectors = wide ? columns / 4 : columns;
  const entries = Math.floor(table.length / columns);
  const source = embeddingSource(type, wide, long);
  const block = rowsPerBinding(gpu, [out, table], columns);
  for (let base = 0; base < Math.max(1, entries); base += block) {
    const shown = Math.min(block, entries - base);
    const rowsShown = part(table, base * columns, shown * columns);
    for (let first = 0; first < rows; first += block) {
      const count = Math.min(block, rows - first);
      const spans = [rowsShown, part(indices, first, count), part(out, first * columns, count * columns)];
      const n = count * vectors;
      gpu.dispatch(source, spans, { n, vectors, base, shown, entries }, Math.ceil(n / EMBEDDING_WORKGROUP));
    }
  }
}

/** See `Kernels.embeddingBackward`. Indices outside the table are passed over. */
export function embeddingBackward(
  gpu: Gpu,
  gradient: Span,
  indices: Span,
  dTable: Span,
  rows: number,
  columns: number,
): void {
  const type = commonType(gpu, "embedding backward", [gradient, dTable]);
  const long = indexIsLong("embedding backward", indices);
  requireLength("embedding backward", indices, rows);
  requireLength("embedding backward", gradient, rows * columns);
  fill(gpu, dTable, 0);
  if (columns === 0) return;
  const wide = isWide([gradient, dTable], columns);
  const vectors = wide ? columns / 4 : columns;
  const entries = Math.floor(dTable.length / columns);
  const blocks = Math.ceil(vectors / EMBEDDING_WORKGROUP);
  const source = embeddingBackwardSource(type, wide, long);
  const block = rowsPerBinding(gpu, [gradient, dTable], columns);
  for (let base = 0; base < entries; base += block) {
    const shown = Math.min(block, entries - base);
    const rowsShown = part(dTable, base * columns, shown * columns);
    for (let first = 0; first < rows; first += block) {
      const positions = Math.min(block, rows - first);
      const spans = [
        part(gradient, first * columns, positions * columns),
        part(indices, first, positions),
        rowsShown,
      ];
      gpu.dispatch(source, spans, { positions, vectors, base, shown, blocks }, positions * blocks);
    }
  }
}

function isWide(spans: readonly Span[], columns: number): boolean {
  return columns % 4 === 0 && spans.every((span) => leadOf(span) === 0);
}

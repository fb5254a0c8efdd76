/**
 * Gradients of an embedding in 16-bit floats, in bands of columns, each of which adds up in float32 for the whole table.
 *
 * @module
 */
import type { Kernels } from "../../../core/contracts/kernels.ts";
import { requireLength } from "../kernels/heap.ts";
import {
  anyHalf,
  commonHalf,
  type HalfContext,
  narrow,
  part,
  requireDType,
  widen,
  workspaces,
} from "./context.ts";

/** The kernel; what has no 16-bit operand goes to the float32 one. The lookup itself moves bits and needs no other. */
export function halfEmbeddingBackward(context: HalfContext): Kernels["embeddingBackward"] {
  const { heap, float32, sizes } = context;
  return (gradient, indices, dTable, rows, columns) => {
    if (!anyHalf(gradient, dTable))
      return float32.embeddingBackward(gradient, indices, dTable, rows, columns);
    const kernel = "embedding backward";
    requireDType(kernel, commonHalf(kernel, [gradient, dTable]), [gradient, dTable]);
    requireLength(kernel, gradient, rows * columns);
    if (columns === 0) return;
    const tableRows = Math.floor(dTable.length / columns);
    const most = Math.max(sizes.bandColumns, Math.floor(sizes.band / Math.max(1, tableRows + rows)));
    const width = Math.min(columns, most);
    const [terms, sums] = workspaces(heap, [rows * width, tableRows * width]);
    for (let column = 0; column < columns; column += width) {
      const band = Math.min(width, columns - column);
      const [term, sum] = [part(terms!, 0, rows * band), part(sums!, 0, tableRows * band)];
      const reach = (count: number): number => Math.max(0, (count - 1) * columns + band);
      if (rows > 0) widen(context, part(gradient, column, reach(rows)), term, rows, band, columns);
      float32.embeddingBackward(term, indices, sum, rows, band);
      if (tableRows > 0)
        narrow(context, sum, part(dTable, column, reach(tableRows)), tableRows, band, columns);
    }
  };
}

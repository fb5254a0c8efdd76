/**
 * Embedding: rows of a table picked by index.
 *
 * @module
 */
import { ShapeError } from "../../contracts/errors.ts";
import { showShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";

/**
 * `table[indices]`: of `table` [rows, n] and integer `indices` [...] the result [..., n]. Equal indices add their
 * gradients in index order, so that a run repeats to the bit.
 *
 * @throws ShapeError when the table has not two dims, the indices are not int32 or int64, or one is outside the table
 * (where the host can see it).
 */
export function embedding(table: Tensor, indices: Tensor): Tensor {
  if (table.shape.length !== 2 || (indices.dtype !== "int32" && indices.dtype !== "int64")) {
    throw new ShapeError(
      `embedding() failed: table ${showShape(table.shape)} with ${indices.dtype} indices ${showShape(indices.shape)}, allowed are [rows, n] with int32 or int64 [...]`,
    );
  }
  const columns = table.shape[1]!;
  const rows = indices.numel;
  const out = table.device.result([...indices.shape, columns], table.dtype);
  table.device.backend.kernels.embedding(table.span, indices.span, out.span, rows, columns);
  const from = table.shape;
  return table.device.record(out, {
    op: "embedding",
    inputs: [table],
    saved: [indices],
    backward: (gradient, [picked]) => {
      const dTable = gradient.device.allocate(from, gradient.dtype);
      gradient.device.backend.kernels.embeddingBackward(
        gradient.span,
        picked!.span,
        dTable.span,
        rows,
        columns,
      );
      return [dTable];
    },
  });
}

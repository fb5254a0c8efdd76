/**
 * Softmax and its gradient.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { Gpu } from "../dispatch.ts";
import { commonType, part, requireLength } from "../spans.ts";
import { softmaxBackwardSource, softmaxSource } from "../wgsl/softmax.ts";
import { runRows } from "./rows.ts";

/** See `Kernels.softmax`. */
export function softmax(gpu: Gpu, x: Span, out: Span, rows: number, columns: number, log: boolean): void {
  const type = commonType(gpu, "softmax", [x, out]);
  for (const span of [x, out]) requireLength("softmax", span, rows * columns);
  runRows(
    gpu,
    ({ wide, workgroup, subgroups }) => softmaxSource(type, wide, log, workgroup, subgroups),
    { matrices: [x, out].map((span) => part(span, 0, rows * columns)) },
    rows,
    columns,
  );
}

/** See `Kernels.softmaxBackward`. */
export function softmaxBackward(
  gpu: Gpu,
  y: Span,
  gradient: Span,
  out: Span,
  rows: number,
  columns: number,
  log: boolean,
): void {
  const matrices = [y, gradient, out];
  const type = commonType(gpu, "softmax backward", matrices);
  for (const span of matrices) requireLength("softmax backward", span, rows * columns);
  runRows(
    gpu,
    ({ wide, workgroup, subgroups }) => softmaxBackwardSource(type, wide, log, workgroup, subgroups),
    { matrices },
    rows,
    columns,
  );
}

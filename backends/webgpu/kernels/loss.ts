/**
 * Cross entropy and its gradient.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { Gpu } from "../dispatch.ts";
import { commonType, indexIsLong, part, requireLength } from "../spans.ts";
import { crossEntropyBackwardSource, crossEntropySource } from "../wgsl/loss.ts";
import { runRows } from "./rows.ts";

/** See `Kernels.crossEntropy`. Losses and sums may be wider than the logits. A target that is no class gives NaN. */
export function crossEntropy(
  gpu: Gpu,
  logits: Span,
  targets: Span,
  losses: Span,
  logSumExp: Span,
  rows: number,
  columns: number,
): void {
  const type = commonType(gpu, "crossEntropy", [logits]);
  const lossType = commonType(gpu, "crossEntropy", [losses, logSumExp]);
  const long = indexIsLong("crossEntropy", targets);
  requireLength("crossEntropy", logits, rows * columns);
  for (const span of [targets, losses, logSumExp]) requireLength("crossEntropy", span, rows);
  runRows(
    gpu,
    ({ wide, workgroup, subgroups }) => crossEntropySource(type, lossType, wide, long, workgroup, subgroups),
    {
      matrices: [part(logits, 0, rows * columns)],
      others: [targets, losses, logSumExp].map((span) => ({ span, perRow: 1 })),
    },
    rows,
    columns,
  );
}

/** See `Kernels.crossEntropyBackward`. */
export function crossEntropyBackward(
  gpu: Gpu,
  logits: Span,
  targets: Span,
  logSumExp: Span,
  gradient: Span,
  dLogits: Span,
  rows: number,
  columns: number,
): void {
  const kernel = "crossEntropy backward";
  const type = commonType(gpu, kernel, [logits, dLogits]);
  const lossType = commonType(gpu, kernel, [logSumExp, gradient]);
  const long = indexIsLong(kernel, targets);
  for (const span of [logits, dLogits]) requireLength(kernel, span, rows * columns);
  for (const span of [targets, logSumExp, gradient]) requireLength(kernel, span, rows);
  runRows(
    gpu,
    ({ wide, workgroup }) => crossEntropyBackwardSource(type, lossType, wide, long, workgroup),
    {
      matrices: [logits, dLogits].map((span) => part(span, 0, rows * columns)),
      others: [targets, logSumExp, gradient].map((span) => ({ span, perRow: 1 })),
    },
    rows,
    columns,
  );
}

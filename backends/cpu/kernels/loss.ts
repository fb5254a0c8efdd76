/**
 * Cross entropy over rows of logits and its gradient, in plain TypeScript. No probabilities are kept: the backward pass
 * needs just each row's log of the sum of exponentials.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import { ShapeError } from "../../../core/contracts/errors.ts";
import { floatsOf, type Heap, indices } from "./heap.ts";

/** Target of a row that does not count, as PyTorch's `ignore_index`. */
export const IGNORED = -100;

/** Row targets as numbers. @throws ShapeError for a target that is no column and not ignored. */
export function targetColumns(
  heap: Heap,
  targets: Span,
  rows: number,
  columns: number,
): Int32Array | number[] {
  const chosen = indices(heap, "crossEntropy", targets, rows);
  for (let row = 0; row < rows; row++) {
    const target = chosen[row]!;
    if ((target >= 0 && target < columns) || target === IGNORED) continue;
    throw new ShapeError(
      `cpu crossEntropy: target ${target} of row ${row} is no class, allowed: 0 to ${columns - 1}, or ${IGNORED} to ignore the row`,
    );
  }
  return chosen;
}

/** See `Kernels.crossEntropy`. */
export function crossEntropy(
  heap: Heap,
  logits: Span,
  targets: Span,
  losses: Span,
  logSumExp: Span,
  rows: number,
  columns: number,
): void {
  const source = floatsOf(heap, "crossEntropy", logits, rows * columns);
  const chosen = targetColumns(heap, targets, rows, columns);
  const loss = floatsOf(heap, "crossEntropy", losses, rows);
  const lse = floatsOf(heap, "crossEntropy", logSumExp, rows);
  for (let row = 0; row < rows; row++) {
    const begin = row * columns;
    let max = Number.NEGATIVE_INFINITY;
    for (let i = 0; i < columns; i++) max = Math.max(max, source[begin + i]!);
    let sum = 0;
    for (let i = 0; i < columns; i++) sum += Math.exp(source[begin + i]! - max);
    const total = max + Math.log(sum);
    const target = chosen[row]!;
    lse[row] = total;
    loss[row] = target === IGNORED ? 0 : total - source[begin + target]!;
  }
}

/** See `Kernels.crossEntropyBackward`. */
export function crossEntropyBackward(
  heap: Heap,
  logits: Span,
  targets: Span,
  logSumExp: Span,
  gradient: Span,
  dLogits: Span,
  rows: number,
  columns: number,
): void {
  const kernel = "crossEntropy backward";
  const source = floatsOf(heap, kernel, logits, rows * columns);
  const chosen = targetColumns(heap, targets, rows, columns);
  const lse = floatsOf(heap, kernel, logSumExp, rows);
  const gradients = floatsOf(heap, kernel, gradient, rows);
  const out = floatsOf(heap, kernel, dLogits, rows * columns);
  for (let row = 0; row < rows; row++) {
    const begin = row * columns;
    const target = chosen[row]!;
    if (target === IGNORED) {
      out.fill(0, begin, begin + columns);
      continue;
    }
    const g = gradients[row]!;
    for (let i = 0; i < columns; i++) {
      out[begin + i] = (Math.exp(source[begin + i]! - lse[row]!) - (i === target ? 1 : 0)) * g;
    }
  }
}

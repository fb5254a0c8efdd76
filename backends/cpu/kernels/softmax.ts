/**
 * Softmax and log-softmax over rows, in plain TypeScript. The row maximum is subtracted first, so nothing overflows.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import { floatsOf, type Heap } from "./heap.ts";

/** See `Kernels.softmax`. */
export function softmax(heap: Heap, x: Span, out: Span, rows: number, columns: number, log: boolean): void {
  const source = floatsOf(heap, "softmax", x, rows * columns);
  const target = floatsOf(heap, "softmax", out, rows * columns);
  for (let begin = 0; begin < rows * columns; begin += columns) {
    const end = begin + columns;
    let max = Number.NEGATIVE_INFINITY;
    for (let i = begin; i < end; i++) max = Math.max(max, source[i]!);
    let sum = 0;
    for (let i = begin; i < end; i++) sum += Math.exp(source[i]! - max);
    const logSum = Math.log(sum);
    if (log) for (let i = begin; i < end; i++) target[i] = source[i]! - max - logSum;
    else for (let i = begin; i < end; i++) target[i] = Math.exp(source[i]! - max) / sum;
  }
}

/** See `Kernels.softmaxBackward`. */
export function softmaxBackward(
  heap: Heap,
  y: Span,
  gradient: Span,
  out: Span,
  rows: number,
  columns: number,
  log: boolean,
): void {
  const ys = floatsOf(heap, "softmax backward", y, rows * columns);
  const gradients = floatsOf(heap, "softmax backward", gradient, rows * columns);
  const target = floatsOf(heap, "softmax backward", out, rows * columns);
  for (let begin = 0; begin < rows * columns; begin += columns) {
    const end = begin + columns;
    let sum = 0;
    if (log) {
      for (let i = begin; i < end; i++) sum += gradients[i]!;
      for (let i = begin; i < end; i++) target[i] = gradients[i]! - Math.exp(ys[i]!) * sum;
    } else {
      for (let i = begin; i < end; i++) sum += gradients[i]! * ys[i]!;
      for (let i = begin; i < end; i++) target[i] = ys[i]! * (gradients[i]! - sum);
    }
  }
}

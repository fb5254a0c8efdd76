/**
 * Reductions in plain TypeScript. Sums are kept in float64 and rounded once.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { ReduceOp } from "../../../core/contracts/kernels.ts";
import { floats, floatsOf, type Heap } from "./heap.ts";

/** See `Kernels.reduce`. */
export function reduce(
  heap: Heap,
  op: ReduceOp,
  x: Span,
  out: Span,
  outer: number,
  extent: number,
  inner: number,
  accumulate: boolean,
): void {
  const source = floatsOf(heap, `reduce ${op}`, x, outer * extent * inner);
  const target = floatsOf(heap, `reduce ${op}`, out, outer * inner);
  const identity = op === "sum" ? 0 : Number.NEGATIVE_INFINITY;
  const totals = new Float64Array(inner);
  for (let o = 0; o < outer; o++) {
    totals.fill(identity);
    for (let e = 0; e < extent; e++) {
      const begin = (o * extent + e) * inner;
      if (op === "sum") for (let i = 0; i < inner; i++) totals[i]! += source[begin + i]!;
      else for (let i = 0; i < inner; i++) totals[i] = Math.max(totals[i]!, source[begin + i]!);
    }
    for (let i = 0; i < inner; i++) {
      const before = accumulate ? target[o * inner + i]! : identity;
      target[o * inner + i] = op === "sum" ? before + totals[i]! : Math.max(before, totals[i]!);
    }
  }
}

/** See `Kernels.normPower`. */
export function normPower(heap: Heap, x: Span, out: Span, p: number): void {
  const source = floats(heap, "normPower", x);
  const target = floatsOf(heap, "normPower", out, 1);
  let total = 0;
  if (p === Number.POSITIVE_INFINITY) {
    for (let i = 0; i < source.length; i++) total = Math.max(total, Math.abs(source[i]!));
  } else if (p === 2) {
    for (let i = 0; i < source.length; i++) total += source[i]! * source[i]!;
  } else {
    for (let i = 0; i < source.length; i++) total += Math.abs(source[i]!) ** p;
  }
  target[0] = total;
}

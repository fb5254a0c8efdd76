/**
 * Spans that follow each other in memory, as the parts of a unit do: one kernel call serves them all.
 *
 * @module
 */
import type { Span } from "../contracts/backend.ts";

/** Whether `right` begins where `left` ends. */
export function adjoins(left: Span, right: Span): boolean {
  return (
    left.buffer === right.buffer && left.dtype === right.dtype && left.offset + left.length === right.offset
  );
}

/** The span of two that adjoin. */
export function union(left: Span, right: Span): Span {
  return { ...left, length: left.length + right.length };
}

/** The same elements in as few spans as their order allows. */
export function joined(spans: readonly Span[]): Span[] {
  const runs: Span[] = [];
  for (const span of spans) {
    const last = runs.at(-1);
    if (last !== undefined && adjoins(last, span)) runs[runs.length - 1] = union(last, span);
    else runs.push(span);
  }
  return runs;
}

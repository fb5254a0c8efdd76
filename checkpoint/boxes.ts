/**
 * Boxes: half-open regions of a tensor. The arithmetic that planning, checking and reading share. A box of rank 0 holds
 * the one element of a scalar.
 *
 * @module
 */
import type { Box } from "../core/contracts/shard.ts";

/** Elements of a box, or of a tensor when its shape is given. */
export function volume(sizes: readonly number[]): number {
  let product = 1;
  for (const size of sizes) product *= size;
  return product;
}

/** The box of a whole tensor. */
export function wholeBox(shape: readonly number[]): Box {
  return { offsets: shape.map(() => 0), sizes: shape };
}

/** Whether a box is the whole of a tensor. */
export function isWhole(box: Box, shape: readonly number[]): boolean {
  return box.sizes.every((size, d) => size === shape[d]) && box.offsets.every((offset) => offset === 0);
}

/** Whether a box is well formed and lies inside a tensor. Hostile numbers (fractions, negatives, NaN) are refused too. */
export function insideShape(box: Box, shape: readonly number[]): boolean {
  if (box.offsets.length !== shape.length || box.sizes.length !== shape.length) return false;
  for (let d = 0; d < shape.length; d++) {
    const offset = box.offsets[d]!;
    const size = box.sizes[d]!;
    const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(size);
    if (!whole || offset < 0 || size < 0 || offset + size > shape[d]!) return false;
  }
  return true;
}

/** Whether two boxes share an element. */
export function boxesOverlap(a: Box, b: Box): boolean {
  for (let d = 0; d < a.sizes.length; d++) {
    const low = Math.max(a.offsets[d]!, b.offsets[d]!);
    const high = Math.min(a.offsets[d]! + a.sizes[d]!, b.offsets[d]! + b.sizes[d]!);
    if (low >= high) return false;
  }
  return true;
}

/** What two overlapping boxes share. */
export function intersectBoxes(a: Box, b: Box): Box {
  const offsets = a.offsets.map((offset, d) => Math.max(offset, b.offsets[d]!));
  const sizes = offsets.map(
    (low, d) => Math.min(a.offsets[d]! + a.sizes[d]!, b.offsets[d]! + b.sizes[d]!) - low,
  );
  return { offsets, sizes };
}

/** For messages: `[0:4, 8:16]`. */
export function formatBox(box: Box): string {
  return `[${box.offsets.map((offset, d) => `${offset}:${offset + box.sizes[d]!}`).join(", ")}]`;
}

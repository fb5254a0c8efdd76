/**
 * Rotary positions in plain TypeScript.
 *
 * @module
 */
import { ShapeError } from "../../../core/contracts/errors.ts";
import type { RotaryArgs } from "../../../core/contracts/kernels.ts";
import { floatsOf, type Heap } from "./heap.ts";

/** @throws ShapeError for heads of odd depth, and for rows without an angle. */
export function requireRotary({ rows, length, headDim }: RotaryArgs): void {
  if (headDim % 2 === 0 && (length > 0 || rows === 0)) return;
  throw new ShapeError(
    `cpu rotary: heads of ${headDim} elements and angles of ${length} rows were given for ${rows} rows, allowed: an even number and at least one`,
  );
}

/** See `Kernels.rotary`. */
export function rotary(heap: Heap, args: RotaryArgs): void {
  requireRotary(args);
  const { rows, length, heads, headDim, inverse } = args;
  const half = headDim / 2;
  const x = floatsOf(heap, "rotary", args.x, rows * heads * headDim);
  const out = floatsOf(heap, "rotary", args.out, rows * heads * headDim);
  const cos = floatsOf(heap, "rotary cos", args.cos, length * half);
  const sin = floatsOf(heap, "rotary sin", args.sin, length * half);
  const sign = inverse ? -1 : 1;
  for (let row = 0; row < rows; row++) {
    const angles = (row % length) * half;
    for (let head = 0; head < heads; head++) {
      const first = (row * heads + head) * headDim;
      for (let d = 0; d < half; d++) {
        const [a, b] = [x[first + d]!, x[first + half + d]!];
        const [c, s] = [cos[angles + d]!, sign * sin[angles + d]!];
        out[first + d] = a * c - b * s;
        out[first + half + d] = b * c + a * s;
      }
    }
  }
}

/**
 * Shape arithmetic: element counts, row-major strides, broadcasting by NumPy's rule.
 *
 * @module
 */
import { ShapeError } from "../contracts/errors.ts";

/** Extents of a tensor, outermost first. `[]` is a scalar. */
export type Shape = readonly number[];

/** Number of elements; 1 for a scalar. */
export function numelOf(shape: Shape): number {
  let n = 1;
  for (const extent of shape) n *= extent;
  return n;
}

/** Elements between neighbours along each dim of a contiguous tensor. */
export function stridesOf(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let d = shape.length - 1; d >= 0; d--) {
    strides[d] = stride;
    stride *= shape[d]!;
  }
  return strides;
}

/** Whether two shapes are equal. */
export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((extent, d) => extent === b[d]);
}

/** A shape as messages show it: `[2, 3]`. */
export function showShape(shape: Shape): string {
  return `[${shape.join(", ")}]`;
}

/** @throws ShapeError unless every extent is a non-negative safe integer. */
export function checkShape(shape: Shape, what: string): void {
  for (const extent of shape) {
    if (!Number.isSafeInteger(extent) || extent < 0) {
      throw new ShapeError(
        `${what} failed: shape ${showShape(shape)} has an extent that is not a whole number >= 0`,
      );
    }
  }
}

/** `dim` counted from the front; negative ones count from the end. @throws ShapeError outside `-rank .. rank-1`. */
export function normalizeDim(dim: number, rank: number, what: string): number {
  const d = dim < 0 ? dim + rank : dim;
  if (!Number.isInteger(dim) || d < 0 || d >= rank) {
    throw new ShapeError(
      `${what} failed: dim ${dim} of a tensor of rank ${rank}, allowed are ${-rank} to ${rank - 1}`,
    );
  }
  return d;
}

/** The common shape of two operands. @throws ShapeError when they do not broadcast. */
export function broadcastShapes(a: Shape, b: Shape, what: string): number[] {
  const rank = Math.max(a.length, b.length);
  const out = new Array<number>(rank);
  for (let i = 1; i <= rank; i++) {
    const x = a[a.length - i] ?? 1;
    const y = b[b.length - i] ?? 1;
    if (x !== y && x !== 1 && y !== 1) {
      throw new ShapeError(`${what} failed: shapes ${showShape(a)} and ${showShape(b)} do not broadcast`);
    }
    out[rank - i] = x === 1 ? y : x;
  }
  return out;
}

/** Strides that read a contiguous tensor of shape `from` as if it had shape `to`; broadcast dims get 0. */
export function broadcastStrides(from: Shape, to: Shape): number[] {
  const own = stridesOf(from);
  const lead = to.length - from.length;
  return to.map((extent, d) => {
    const source = d - lead;
    return source < 0 || (from[source] === 1 && extent !== 1) ? 0 : own[source]!;
  });
}

/** An iteration space over several operands. */
export interface IterationSpace {
  readonly sizes: Shape;
  /** Per operand. */
  readonly strides: readonly (readonly number[])[];
}

/** Makes dims that lie behind each other in every operand one, and drops those of extent 1. May leave none. */
export function mergeDims(sizes: Shape, strides: readonly (readonly number[])[]): IterationSpace {
  const extents: number[] = [];
  const merged: number[][] = strides.map(() => []);
  for (let d = sizes.length - 1; d >= 0; d--) {
    const size = sizes[d]!;
    if (size === 1) continue;
    const inner = extents[0];
    if (inner !== undefined && strides.every((s, n) => s[d] === merged[n]![0]! * inner)) {
      extents[0] = inner * size;
      continue;
    }
    extents.unshift(size);
    for (const [n, s] of strides.entries()) merged[n]!.unshift(s[d]!);
  }
  return { sizes: extents, strides: merged };
}

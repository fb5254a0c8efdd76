/**
 * Large tensors in parts: slabs of leading rows, whose bytes behind one another are the tensor's.
 *
 * @module
 */
import type { Box } from "../../core/contracts/shard.ts";
import { volume } from "../boxes.ts";

/** Cuts a tensor along its first axis that has more than one row, into slabs of at most `maxBytes` or a single row. */
export function* slabsOf(shape: readonly number[], elementBytes: number, maxBytes: number): Generator<Box> {
  const found = shape.findIndex((extent) => extent !== 1);
  const axis = found < 0 ? shape.length - 1 : found;
  const rows = shape[axis];
  if (rows === undefined) {
    yield { offsets: [], sizes: [] };
    return;
  }
  const rowBytes = volume(shape.slice(axis + 1)) * elementBytes;
  const step = Math.max(1, Math.floor(maxBytes / Math.max(1, rowBytes)));
  for (let row = 0; row < rows; row += step) {
    yield {
      offsets: shape.map((_, d) => (d === axis ? row : 0)),
      sizes: shape.map((extent, d) => (d === axis ? Math.min(step, rows - row) : extent)),
    };
  }
}

/** A box as itself or, when it is large, as slabs of it. */
export function cutLarge(box: Box, elementBytes: number, maxBytes: number): readonly Box[] {
  if (volume(box.sizes) * elementBytes <= maxBytes) return [box];
  return [...slabsOf(box.sizes, elementBytes, maxBytes)].map((slab) => ({
    offsets: slab.offsets.map((offset, d) => offset + box.offsets[d]!),
    sizes: slab.sizes,
  }));
}

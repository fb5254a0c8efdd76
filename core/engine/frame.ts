/**
 * Frame: what one gather carries. Every rank sends one slice; in it lie segments, one after the other: a bucket's flat
 * shard, or an input of an extension. Segments of one dtype make a buffer of that dtype, different ones a buffer of
 * bytes, as FSDP2's `foreach_all_gather` does.
 *
 * @module
 */
import { DTYPES, type DType } from "../contracts/dtype.ts";
import type { GatheredPlace } from "./moves.ts";

/** What a segment consists of, on every rank. */
export interface SegmentSpec {
  readonly dtype: DType;
  readonly numel: number;
}

/** A segment and its place in the gathered buffer, counted in elements of its own dtype. */
export interface Segment extends SegmentSpec, GatheredPlace {}

/** Layout of a gathered buffer. */
export interface Frame {
  /** Of the buffer. */
  readonly dtype: DType;
  /** Elements that each rank sends. */
  readonly rankNumel: number;
  readonly segments: readonly Segment[];
}

/** Segments begin at multiples of it, so that any dtype and any device can read them. */
const ALIGNMENT_BYTES = 16;

/** Lays segments out. */
export function frameOf(specs: readonly SegmentSpec[]): Frame {
  const [first] = specs;
  const uniform = specs.every(({ dtype }) => dtype === first?.dtype);
  const starts: number[] = [];
  let size = 0;
  for (const { dtype, numel } of specs) {
    starts.push(size);
    const bytes = numel * DTYPES[dtype].bytes;
    size += uniform ? numel : Math.ceil(bytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
  }
  const segments = specs.map(({ dtype, numel }, i) => {
    const unit = uniform ? 1 : DTYPES[dtype].bytes;
    return { dtype, numel, start: starts[i]! / unit, stride: size / unit };
  });
  return { dtype: uniform ? (first?.dtype ?? "uint8") : "uint8", rankNumel: size, segments };
}

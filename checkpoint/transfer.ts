/**
 * Transfers: the bytes of one box, from where they lie in a file to where they belong in memory, as equal runs at
 * strides. Batches of runs become single reads: small gaps are read along (as in Orbax's safetensors reader), big runs
 * are split, so that memory beside the target stays bounded.
 *
 * @module
 */
import type { Box } from "../core/contracts/shard.ts";
import { volume } from "./boxes.ts";

/** Unneeded bytes between two runs up to which one read covers both. */
export const MAX_GAP: number = 64 * 1024;
/** Largest single read. */
export const MAX_BATCH_BYTES: number = 8 * 1024 * 1024;
/** Runs whose descriptions are held at once. */
export const MAX_BATCH_RUNS: number = 4096;

/** Equal runs of bytes at strides: run `i` of axis `d` is `sourceStrides[d] * i` further in the source. */
export interface Transfer {
  readonly file: string;
  /** Bytes of one run. */
  readonly length: number;
  /** First byte in the file. */
  readonly source: number;
  /** First byte in the target. */
  readonly target: number;
  /** Runs along each axis, outermost first; none means a single run. */
  readonly counts: readonly number[];
  readonly sourceStrides: readonly number[];
  readonly targetStrides: readonly number[];
}

/** A contiguous run: where it is read and where it goes, in bytes. */
export interface Run {
  readonly source: number;
  readonly target: number;
  readonly length: number;
}

/** One read of bytes `[begin, end)` of the file, and what of it is wanted. */
export interface Batch {
  readonly begin: number;
  readonly end: number;
  readonly runs: readonly Run[];
}

/**
 * The transfer of `region` from a row-major `source` box, whose first byte is at `sourceBegin` of `file`, into a
 * row-major `target` box. `region` lies in both. Trailing axes that are whole in both join into one run.
 */
export function stridedTransfer(
  file: string,
  sourceBegin: number,
  source: Box,
  target: Box,
  region: Box,
  elementBytes: number,
): Transfer {
  const counts: number[] = [];
  const sourceStrides: number[] = [];
  const targetStrides: number[] = [];
  let from = sourceBegin;
  let to = 0;
  let length = elementBytes;
  let sourceStride = elementBytes;
  let targetStride = elementBytes;
  let joined = true;
  for (let d = region.sizes.length - 1; d >= 0; d--) {
    const size = region.sizes[d]!;
    from += (region.offsets[d]! - source.offsets[d]!) * sourceStride;
    to += (region.offsets[d]! - target.offsets[d]!) * targetStride;
    if (joined) length *= size;
    else if (size !== 1) {
      counts.unshift(size);
      sourceStrides.unshift(sourceStride);
      targetStrides.unshift(targetStride);
    }
    joined &&= size === source.sizes[d] && size === target.sizes[d];
    sourceStride *= source.sizes[d]!;
    targetStride *= target.sizes[d]!;
  }
  return { file, length, source: from, target: to, counts, sourceStrides, targetStrides };
}

/** Bytes that a transfer moves. */
export function transferBytes({ length, counts }: Transfer): number {
  return length * volume(counts);
}

/** Where the last run of a transfer ends in its file. */
export function transferEnd({ source, length, counts, sourceStrides }: Transfer): number {
  return counts.reduce((sum, count, d) => sum + (count - 1) * sourceStrides[d]!, source + length);
}

/** The reads that a transfer needs, ascending in the file and disjoint, each of at most 8 MiB. */
export function* batches(transfer: Transfer): Generator<Batch> {
  let runs: Run[] = [];
  for (const run of runsOf(transfer)) {
    const first = runs[0];
    if (first !== undefined) {
      const last = runs.at(-1)!;
      const end = run.source + run.length;
      const far = run.source - (last.source + last.length) > MAX_GAP;
      if (far || end - first.source > MAX_BATCH_BYTES || runs.length === MAX_BATCH_RUNS) {
        yield batchOf(runs);
        runs = [];
      }
    }
    runs.push(run);
  }
  if (runs.length > 0) yield batchOf(runs);
}

/** Copies what a batch wants from the bytes that were read for it. */
export function placeBatch(batch: Batch, bytes: Uint8Array, target: Uint8Array): void {
  for (const run of batch.runs) {
    const at = run.source - batch.begin;
    target.set(bytes.subarray(at, at + run.length), run.target);
  }
}

function batchOf(runs: readonly Run[]): Batch {
  const last = runs.at(-1)!;
  return { begin: runs[0]!.source, end: last.source + last.length, runs };
}

/** The runs of a transfer, ascending in the file, each of at most 8 MiB. */
export function* runsOf(transfer: Transfer): Generator<Run> {
  if (transfer.length === 0) return;
  for (const { source, target } of runStarts(transfer)) {
    for (let at = 0; at < transfer.length; ) {
      // Cut where the file's blocks end, so that a verified reader meets no block twice.
      const room = MAX_BATCH_BYTES - ((source + at) % MAX_BATCH_BYTES);
      const length = Math.min(room, transfer.length - at);
      yield { source: source + at, target: target + at, length };
      at += length;
    }
  }
}

/** Starts of all runs, in row-major order: ascending in source and target. */
function* runStarts(transfer: Transfer): Generator<{ source: number; target: number }> {
  const { counts, sourceStrides, targetStrides } = transfer;
  const index = new Array<number>(counts.length).fill(0);
  let { source, target } = transfer;
  if (counts.includes(0)) return;
  for (;;) {
    yield { source, target };
    let d = counts.length - 1;
    for (; d >= 0; d--) {
      index[d]! += 1;
      source += sourceStrides[d]!;
      target += targetStrides[d]!;
      if (index[d]! < counts[d]!) break;
      index[d] = 0;
      source -= sourceStrides[d]! * counts[d]!;
      target -= targetStrides[d]! * counts[d]!;
    }
    if (d < 0) return;
  }
}

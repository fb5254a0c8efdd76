/**
 * In which order the bytes of a load are read. Pieces are taken by windows of neighbouring tensors; within a window each
 * file is gone through once, ascending, whatever pieces its bytes belong to. So small tensors that lie together are one
 * read, and pieces whose runs interleave (columns of one tensor) do not read the same blocks twice.
 *
 * @module
 */
import type { PiecePlan } from "./plan.ts";
import {
  type Batch,
  MAX_BATCH_BYTES,
  MAX_BATCH_RUNS,
  MAX_GAP,
  type Run,
  runsOf,
  type Transfer,
  transferEnd,
} from "./transfer.ts";

/** Bytes of a window's pieces, unless one tensor has more. */
const WINDOW_BYTES = 64 * 1024 * 1024;
/** Runs from this length on are reads of their own, so that they can go straight to their place. */
const LONG_RUN_BYTES = 4 * 1024 * 1024;

/** A run of one piece. */
interface PieceRun extends Run {
  /** Index into the window's plans. */
  readonly piece: number;
}

/** One read of a file, and whose bytes are in it. */
export interface Read extends Batch {
  readonly file: string;
  readonly runs: readonly PieceRun[];
}

/** Cuts plans, which lie in the order of their bytes, into windows; pieces of one tensor stay together. */
export function windows(plans: readonly PiecePlan[]): readonly (readonly PiecePlan[])[] {
  const byTensor = new Map<number, PiecePlan[]>();
  for (const plan of plans) {
    const known = byTensor.get(plan.tensor);
    if (known === undefined) byTensor.set(plan.tensor, [plan]);
    else known.push(plan);
  }
  const all: PiecePlan[][] = [];
  let room = 0;
  for (const pieces of byTensor.values()) {
    const bytes = pieces.reduce((sum, piece) => sum + piece.bytes, 0);
    if (bytes > room || all.length === 0) {
      all.push([]);
      room = WINDOW_BYTES;
    }
    room -= bytes;
    all.at(-1)!.push(...pieces);
  }
  return all;
}

/** The reads of a window: by file, ascending in it, disjoint. */
export function* windowReads(window: readonly PiecePlan[]): Generator<Read> {
  const byFile = new Map<string, PieceTransfer[]>();
  for (const [piece, { transfers }] of window.entries()) {
    for (const transfer of transfers) {
      const known = byFile.get(transfer.file);
      if (known === undefined) byFile.set(transfer.file, [{ piece, transfer }]);
      else known.push({ piece, transfer });
    }
  }
  for (const file of [...byFile.keys()].sort()) {
    let runs: PieceRun[] = [];
    const read = (): Read => ({ file, begin: runs[0]!.source, end: endOf(runs.at(-1)!), runs });
    for (const run of ascendingRuns(byFile.get(file)!)) {
      const first = runs[0];
      if (first !== undefined) {
        const far = run.source - endOf(runs.at(-1)!) > MAX_GAP;
        const long = run.length >= LONG_RUN_BYTES || first.length >= LONG_RUN_BYTES;
        if (far || long || endOf(run) - first.source > MAX_BATCH_BYTES || runs.length === MAX_BATCH_RUNS) {
          yield read();
          runs = [];
        }
      }
      runs.push(run);
    }
    if (runs.length > 0) yield read();
  }
}

interface PieceTransfer {
  readonly piece: number;
  readonly transfer: Transfer;
}

function endOf(run: Run): number {
  return run.source + run.length;
}

/** All runs of some transfers of one file in the order of their bytes, which are disjoint. */
function* ascendingRuns(transfers: PieceTransfer[]): Generator<PieceRun> {
  transfers.sort((a, b) => a.transfer.source - b.transfer.source);
  for (let i = 0; i < transfers.length; ) {
    // Transfers whose extents meet go through the file together.
    const group = [transfers[i]!];
    let end = transferEnd(group[0]!.transfer);
    for (i++; i < transfers.length && transfers[i]!.transfer.source < end; i++) {
      group.push(transfers[i]!);
      end = Math.max(end, transferEnd(transfers[i]!.transfer));
    }
    yield* merged(group.map(pieceRuns));
  }
}

function* pieceRuns({ piece, transfer }: PieceTransfer): Generator<PieceRun> {
  for (const run of runsOf(transfer)) yield { ...run, piece };
}

function* merged(sources: Generator<PieceRun>[]): Generator<PieceRun> {
  if (sources.length === 1) return yield* sources[0]!;
  const heads = sources.flatMap((source) => {
    const { value } = source.next();
    return value ? [{ source, run: value as PieceRun }] : [];
  });
  while (heads.length > 0) {
    let least = 0;
    for (let i = 1; i < heads.length; i++) {
      if (heads[i]!.run.source < heads[least]!.run.source) least = i;
    }
    const head = heads[least]!;
    yield head.run;
    const next = head.source.next();
    if (next.done === true) heads.splice(least, 1);
    else head.run = next.value;
  }
}

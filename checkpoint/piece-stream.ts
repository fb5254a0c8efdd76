/**
 * The bytes of a rank's pieces, in order, as few chunks: large pieces from where they lie, small ones gathered. Pieces in
 * a device's own memory are fetched a few ahead, into memory that is used again.
 *
 * A fresh page of memory costs more than hashing it, so none is taken per piece.
 *
 * @module
 */
import { bytesOf, newHostArray, STORED_DTYPES, type StoredArray } from "../core/contracts/dtype.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import { volume } from "./boxes.ts";
import type { OwnPiece } from "./replicas.ts";

/** Pieces from this size on are given in place. */
const DIRECT_BYTES = 1024 * 1024;
/** Longest chunk: it is hashed while it is written. */
const CHUNK_BYTES = 2 * 1024 * 1024;
/** Small pieces are gathered up to this. */
const GATHER_BYTES = 4 * 1024 * 1024;
/** Fetches under way at once. */
const AHEAD = 4;

/** Chunks of the pieces' bytes; each is valid until the next is asked for. @throws what a piece's `read` threw. */
export async function* pieceBytes(pieces: readonly OwnPiece[]): AsyncGenerator<Uint8Array> {
  let gather: Uint8Array | undefined;
  let filled = 0;
  for await (const bytes of fetched(pieces)) {
    const direct = bytes.length >= DIRECT_BYTES;
    if (gather !== undefined && filled > 0 && (direct || filled + bytes.length > gather.length)) {
      yield gather.subarray(0, filled);
      filled = 0;
    }
    if (direct) {
      for (let at = 0; at < bytes.length; at += CHUNK_BYTES) yield bytes.subarray(at, at + CHUNK_BYTES);
    } else {
      gather ??= new Uint8Array(new SharedArrayBuffer(Math.min(GATHER_BYTES, smallBytes(pieces))));
      gather.set(bytes, filled);
      filled += bytes.length;
    }
  }
  if (gather !== undefined && filled > 0) yield gather.subarray(0, filled);
}

/** Bytes of all pieces that are gathered. */
function smallBytes(pieces: readonly OwnPiece[]): number {
  const lengths = pieces.map(pieceLength);
  return lengths.reduce((sum, length) => (length < DIRECT_BYTES ? sum + length : sum), 0);
}

/** Bytes of a piece's box. */
export function pieceLength({ tensor, piece }: OwnPiece): number {
  return volume(piece.sizes) * STORED_DTYPES[tensor.dtype].bytes;
}

/** Fills `target`, of the piece's dtype and length, with its elements. */
export async function fetchPiece({ tensor, piece }: OwnPiece, target: StoredArray): Promise<void> {
  const view = piece.view?.();
  if (view === undefined && piece.readInto !== undefined) return await piece.readInto(target);
  const bytes = bytesOf(view ?? (await piece.read()));
  checkLength(tensor.name, bytes.length, target.byteLength);
  bytesOf(target).set(bytes);
}

async function* fetched(pieces: readonly OwnPiece[]): AsyncGenerator<Uint8Array> {
  const ring: StoredArray[] = [];
  const underWay: (Promise<StoredArray> | undefined)[] = [];
  const start = (i: number): void => {
    const own = pieces[i];
    if (own === undefined || own.piece.view?.() !== undefined) return;
    const fetching = fetchInto(ring, i % AHEAD, own);
    // Its failure is met when its turn comes.
    fetching.catch(() => undefined);
    underWay[i % AHEAD] = fetching;
  };
  try {
    for (let i = 0; i < AHEAD - 1; i++) start(i);
    for (const [i, own] of pieces.entries()) {
      start(i + AHEAD - 1);
      const bytes = bytesOf(own.piece.view?.() ?? (await underWay[i % AHEAD]!));
      underWay[i % AHEAD] = undefined;
      checkLength(own.tensor.name, bytes.length, pieceLength(own));
      yield bytes;
    }
  } finally {
    await Promise.allSettled(underWay);
  }
}

async function fetchInto(ring: StoredArray[], slot: number, own: OwnPiece): Promise<StoredArray> {
  if (own.piece.readInto === undefined) return await own.piece.read();
  const { dtype } = own.tensor;
  const length = volume(own.piece.sizes);
  const known = ring[slot];
  const fresh = newHostArray(dtype, 0);
  let target = known;
  if (target?.constructor !== fresh.constructor || target.length < length) {
    target = newHostArray(dtype, length);
    ring[slot] = target;
  }
  const exact = target.subarray(0, length);
  await own.piece.readInto(exact);
  return exact;
}

function checkLength(name: string, given: number, due: number): void {
  if (given !== due) {
    throw new CheckpointError(`tensor ${name}: a piece gave ${given} bytes, its box takes ${due}`);
  }
}

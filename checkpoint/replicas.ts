/**
 * Which rank writes which piece. A box that several ranks hold (replicated parameters, HSDP replicas) is written by one
 * of its holders, so that all write about the same number of bytes. Whether a box is replicated cannot be told from one
 * rank: a small tensor may lie whole on one rank and nowhere else. So ranks exchange 16 bytes per piece, a digest of
 * name and box and its size; from the same tables each comes to the same assignment, no rank plans for another, and no
 * data moves.
 *
 * Were two digests ever to collide, a piece would go unwritten and the coverage check would refuse the checkpoint.
 *
 * @module
 */
import type { StatePiece, StateTensor } from "../core/contracts/checkpointer.ts";
import type { Collective } from "../core/contracts/collective.ts";
import { STORED_DTYPES } from "../core/contracts/dtype.ts";
import type { Box } from "../core/contracts/shard.ts";
import { allGatherBytes } from "./agree.ts";
import { volume } from "./boxes.ts";
import { sha256Hex } from "./digest.ts";

/** A piece and its tensor. */
export interface OwnPiece {
  readonly tensor: StateTensor;
  readonly piece: StatePiece;
}

/** Bytes of a row that tells of a piece. */
const ROW = 16;

/** Identifies a box of a tensor. */
export function pieceKey(name: string, box: Box): string {
  return JSON.stringify([name, box.offsets, box.sizes]);
}

/** The pieces that this rank is to write: over all ranks each distinct box once, empty boxes never. Collective. */
export async function piecesToWrite(
  collective: Collective,
  tensors: readonly StateTensor[],
): Promise<readonly OwnPiece[]> {
  const own: OwnPiece[] = [];
  for (const tensor of tensors) {
    for (const piece of tensor.pieces) if (!piece.sizes.includes(0)) own.push({ tensor, piece });
  }
  const rows = new Uint8Array(ROW * own.length);
  const view = new DataView(rows.buffer);
  const digests = own.map(({ tensor, piece }, i) => {
    const digest = BigInt(`0x${sha256Hex(pieceKey(tensor.name, piece)).slice(0, 16)}`);
    view.setBigUint64(ROW * i, digest, true);
    view.setFloat64(ROW * i + 8, volume(piece.sizes) * STORED_DTYPES[tensor.dtype].bytes, true);
    return digest;
  });
  const writers = assignWriters(await allGatherBytes(collective, rows));
  return own.filter((_, i) => writers.get(digests[i]!) === collective.rank);
}

/** Who writes each box: the only holder, and of several the one with least to write so far, large boxes first. */
function assignWriters(tables: readonly Uint8Array[]): ReadonlyMap<bigint, number> {
  const boxes = new Map<bigint, { readonly bytes: number; readonly holders: number[] }>();
  for (const [rank, table] of tables.entries()) {
    const view = new DataView(table.buffer, table.byteOffset, table.byteLength);
    for (let at = 0; at < table.length; at += ROW) {
      const digest = view.getBigUint64(at, true);
      const known = boxes.get(digest);
      if (known === undefined) boxes.set(digest, { bytes: view.getFloat64(at + 8, true), holders: [rank] });
      else known.holders.push(rank);
    }
  }
  const writers = new Map<bigint, number>();
  const load = new Float64Array(tables.length);
  const give = (digest: bigint, rank: number, bytes: number): void => {
    writers.set(digest, rank);
    load[rank]! += bytes;
  };
  const shared = [...boxes].filter(([digest, { bytes, holders }]) => {
    if (holders.length > 1) return true;
    give(digest, holders[0]!, bytes);
    return false;
  });
  // Of equal ones the digest decides, so that all ranks and runs agree.
  shared.sort(([a, x], [b, y]) => y.bytes - x.bytes || (a < b ? -1 : 1));
  for (const [digest, { bytes, holders }] of shared) {
    give(
      digest,
      holders.reduce((best, rank) => (load[rank]! < load[best]! ? rank : best)),
      bytes,
    );
  }
  return writers;
}

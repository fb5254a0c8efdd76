/**
 * Which rank writes which piece. A box that several ranks hold (replicated parameters, HSDP replicas) is written by one
 * of its holders, picked by a hash so that the load spreads evenly. Whether a box is replicated cannot be told from one
 * rank: a small tensor may lie whole on one rank and nowhere else. So ranks exchange 8 bytes per piece, a digest of
 * name and box; no rank plans for another, and no data moves.
 *
 * Were two digests ever to collide, a piece would go unwritten and the coverage check would refuse the checkpoint.
 *
 * @module
 */
import type { StatePiece, StateTensor } from "../core/contracts/checkpointer.ts";
import type { Collective } from "../core/contracts/collective.ts";
import type { Box } from "../core/contracts/shard.ts";
import { allGatherBytes } from "./agree.ts";
import { sha256Hex } from "./digest.ts";

/** A piece and its tensor. */
export interface OwnPiece {
  readonly tensor: StateTensor;
  readonly piece: StatePiece;
}

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
  const digests: bigint[] = [];
  for (const tensor of tensors) {
    for (const piece of tensor.pieces) {
      if (piece.sizes.includes(0)) continue;
      own.push({ tensor, piece });
      digests.push(BigInt(`0x${sha256Hex(pieceKey(tensor.name, piece)).slice(0, 16)}`));
    }
  }
  const holders = new Map(digests.map((digest) => [digest, [] as number[]]));
  const tables = await allGatherBytes(collective, encodeDigests(digests));
  for (const [rank, table] of tables.entries()) {
    const view = new DataView(table.buffer, table.byteOffset, table.byteLength);
    for (let at = 0; at < table.length; at += 8) holders.get(view.getBigUint64(at, true))?.push(rank);
  }
  return own.filter((_, i) => {
    const ranks = holders.get(digests[i]!)!;
    return ranks[Number(digests[i]! % BigInt(ranks.length))] === collective.rank;
  });
}

function encodeDigests(digests: readonly bigint[]): Uint8Array {
  const bytes = new Uint8Array(8 * digests.length);
  const view = new DataView(bytes.buffer);
  for (const [i, digest] of digests.entries()) view.setBigUint64(8 * i, digest, true);
  return bytes;
}

/**
 * The load planner: from the boxes that a checkpoint has to the boxes that somebody wants. Pure: it proves that every
 * wanted element is there, in the expected dtype and shape, before anything is read or any memory touched, and says
 * which bytes of which file go where.
 *
 * Same task as PyTorch's `create_read_items_for_chunk_list` (torch/distributed/checkpoint/planner_helpers.py), which
 * checks no coverage and reads whole chunks; this reads just the bytes wanted.
 *
 * @module
 */
import { STORED_DTYPES, type StoredDType } from "../core/contracts/dtype.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import type { Box } from "../core/contracts/shard.ts";
import { type BoxIndex, indexBoxes } from "./box-index.ts";
import { formatBox, insideShape, intersectBoxes, volume } from "./boxes.ts";
import { listFaults, type ManifestTensor } from "./manifest.ts";
import { stridedTransfer, type Transfer, transferBytes } from "./transfer.ts";

/** Boxes wanted of one tensor. */
export interface WantedTensor {
  readonly name: string;
  readonly dtype: StoredDType;
  /** Global shape. */
  readonly shape: readonly number[];
  readonly pieces: readonly Box[];
}

/** How one wanted box is filled. */
export interface PiecePlan {
  /** Indices of the tensor, and of the box in it, as they were wanted. */
  readonly tensor: number;
  readonly piece: number;
  /** Bytes of the box. */
  readonly bytes: number;
  /** Cover the box exactly; ordered by file, then first byte. */
  readonly transfers: readonly Transfer[];
}

/**
 * Plans all wanted boxes, ordered by where their bytes begin, so that pieces which share a block follow one another.
 * Costs about (saved + wanted) log(saved) plus one transfer per overlap.
 *
 * @param saved the tensors of a checked manifest: their chunks are disjoint
 * @throws CheckpointError that lists every tensor that is missing, differs in dtype or shape, or is not covered.
 */
export function planLoad(
  saved: readonly ManifestTensor[],
  wanted: readonly WantedTensor[],
): readonly PiecePlan[] {
  const byName = new Map(saved.map((tensor) => [tensor.name, tensor]));
  const faults: string[] = [];
  const plans: PiecePlan[] = [];
  for (const [t, want] of wanted.entries()) {
    const have = byName.get(want.name);
    if (have === undefined) {
      faults.push(`tensor ${want.name}: missing`);
      continue;
    }
    const problem = tensorDifference(have, want);
    if (problem !== undefined) {
      faults.push(`tensor ${want.name}: ${problem}`);
      continue;
    }
    const index = indexBoxes(have.chunks);
    for (const [p, box] of want.pieces.entries()) {
      if (!insideShape(box, want.shape)) {
        faults.push(`tensor ${want.name}: box ${formatBox(box)} is outside its shape [${want.shape}]`);
        continue;
      }
      const elements = volume(box.sizes);
      const { bytes } = STORED_DTYPES[want.dtype];
      const transfers = boxTransfers(have, index, box);
      // Saved chunks are disjoint, so their shares of the box add up to it only when they cover it.
      let covered = 0;
      for (const transfer of transfers) covered += transferBytes(transfer) / bytes;
      if (covered !== elements) {
        faults.push(
          `tensor ${want.name}: box ${formatBox(box)}: ${covered} of ${elements} elements are saved`,
        );
        continue;
      }
      plans.push({ tensor: t, piece: p, bytes: elements * bytes, transfers });
    }
  }
  if (faults.length > 0) throw new CheckpointError(listFaults(faults));
  return plans.sort((a, b) => {
    const [x, y] = [a.transfers[0], b.transfers[0]];
    return x === undefined || y === undefined
      ? Number(x !== undefined) - Number(y !== undefined)
      : byPlace(x, y);
  });
}

/**
 * What the chunks of a saved tensor hold of a box inside it: transfers into a row-major copy of the box, ordered by file,
 * then first byte. `index` is of those chunks.
 */
export function boxTransfers(tensor: ManifestTensor, index: BoxIndex, box: Box): readonly Transfer[] {
  const { bytes } = STORED_DTYPES[tensor.dtype];
  const found = volume(box.sizes) === 0 ? [] : index.overlapping(box);
  const transfers = found.map((i) => {
    const chunk = tensor.chunks[i]!;
    return stridedTransfer(chunk.file, chunk.begin, chunk, box, intersectBoxes(chunk, box), bytes);
  });
  return transfers.sort(byPlace);
}

/** How a saved tensor differs from the one that is wanted, in words; `undefined` when it does not. */
export function tensorDifference(
  have: Pick<ManifestTensor, "dtype" | "shape">,
  want: Pick<WantedTensor, "dtype" | "shape">,
): string | undefined {
  if (have.dtype !== want.dtype) return `saved as ${have.dtype}, wanted as ${want.dtype}`;
  const equal =
    have.shape.length === want.shape.length && have.shape.every((extent, d) => extent === want.shape[d]);
  return equal ? undefined : `saved with shape [${have.shape}], wanted with [${want.shape}]`;
}

function byPlace(a: Transfer, b: Transfer): number {
  if (a.file !== b.file) return a.file < b.file ? -1 : 1;
  return a.source - b.source;
}

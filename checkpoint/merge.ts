/**
 * The first rank's part of a save: the ranks' parts become one manifest, which is proven sound before it is written.
 *
 * @module
 */
import type { StoreTransaction } from "../core/contracts/checkpointer.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import { type Chunk, decodeBody, listFaults, type Manifest, type ManifestTensor } from "./manifest.ts";
import { manifestFaults } from "./manifest-check.ts";
import { partFile, rankFile } from "./rank-file.ts";

/**
 * Reads all ranks' parts and merges them.
 *
 * @throws CheckpointError that lists every hole, overlap and contradiction.
 */
export async function mergeParts(
  transaction: StoreTransaction,
  step: number,
  worldSize: number,
  createdAt: number,
): Promise<Manifest> {
  const faults: string[] = [];
  const parts: Manifest[] = [];
  for (let rank = 0; rank < worldSize; rank++) {
    const part = decodeBody(await transaction.read(partFile(rank)));
    parts.push(part);
    if (part.step !== step || part.worldSize !== worldSize || part.rankValues.length !== 1) {
      faults.push(
        `rank ${rank}: its part is for step ${part.step} of ${part.worldSize} ranks, not ${step} of ${worldSize}`,
      );
    }
    if (part.files.some((file) => file.name !== rankFile(rank)))
      faults.push(`rank ${rank}: its part lists another's file`);
  }
  const manifest: Manifest = {
    step,
    worldSize,
    createdAt,
    tensors: mergeTensors(parts, faults),
    files: parts.flatMap((part) => part.files),
    values: parts[0]?.values ?? {},
    rankValues: parts.flatMap((part) => part.rankValues),
  };
  faults.push(...manifestFaults(manifest));
  if (faults.length > 0) throw new CheckpointError(listFaults(faults));
  return manifest;
}

/** Tensors by first appearance, each with the chunks of all ranks in rank order. */
function mergeTensors(parts: readonly Manifest[], faults: string[]): readonly ManifestTensor[] {
  const merged = new Map<string, { tensor: ManifestTensor; rank: number; chunks: Chunk[] }>();
  for (const [rank, part] of parts.entries()) {
    for (const tensor of part.tensors) {
      const known = merged.get(tensor.name);
      if (known === undefined) {
        merged.set(tensor.name, { tensor, rank, chunks: [...tensor.chunks] });
        continue;
      }
      const [ours, theirs] = [known.tensor, tensor].map(({ dtype, shape }) => `${dtype} [${shape}]`);
      if (ours !== theirs)
        faults.push(`tensor ${tensor.name}: ${ours} on rank ${known.rank}, ${theirs} on rank ${rank}`);
      known.chunks.push(...tensor.chunks);
    }
  }
  return [...merged.values()].map(({ tensor, chunks }) => ({ ...tensor, chunks }));
}

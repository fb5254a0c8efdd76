/**
 * The first rank's part of a save: the ranks' parts become one manifest, which is proven sound before it is written.
 *
 * @module
 */
import type { StoreTransaction } from "../core/contracts/checkpointer.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import { allEnded } from "./agree.ts";
import { type Chunk, decodeBody, listFaults, type Manifest, type ManifestTensor } from "./manifest.ts";
import { manifestFaults } from "./manifest-check.ts";
import { constantFile, partFile, rankFile } from "./rank-file.ts";

/** Ranks whose parts are read or removed at once. */
const AT_ONCE = 16;

/**
 * Reads all ranks' parts and merges them.
 *
 * @throws CheckpointError that lists every hole, overlap and contradiction.
 */
export async function mergeParts(
  transaction: Pick<StoreTransaction, "read">,
  step: number,
  worldSize: number,
  createdAt: number,
): Promise<Manifest> {
  const faults: string[] = [];
  const parts: Manifest[] = [];
  await forRanks(worldSize, async (rank) => {
    parts[rank] = decodeBody(await transaction.read(partFile(rank)));
  });
  for (const [rank, part] of parts.entries()) {
    if (part.step !== step || part.worldSize !== worldSize || part.rankValues.length !== 1) {
      faults.push(
        `rank ${rank}: its part is for step ${part.step} of ${part.worldSize} ranks, not ${step} of ${worldSize}`,
      );
    }
    const own = [rankFile(rank), constantFile(rank)];
    if (part.files.some((file) => !own.includes(file.name)))
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

/** Removes all ranks' parts: they are not of the checkpoint. */
export async function removeParts(transaction: StoreTransaction, worldSize: number): Promise<void> {
  await forRanks(worldSize, (rank) => transaction.remove(partFile(rank)));
}

/** Runs a task for every rank, a few at a time: a store may be far away. */
async function forRanks(worldSize: number, task: (rank: number) => Promise<void>): Promise<void> {
  for (let first = 0; first < worldSize; first += AT_ONCE) {
    const ranks = Array.from({ length: Math.min(AT_ONCE, worldSize - first) }, (_, i) => first + i);
    await allEnded(ranks.map(task));
  }
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

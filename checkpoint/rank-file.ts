/**
 * What one rank contributes to a checkpoint: `rank-NNNNN.safetensors` with the pieces it writes, streamed one by one and
 * hashed on the way, and `rank-NNNNN.msgpack`, its part of the manifest, which the first rank merges and removes.
 *
 * The file's content does not depend on step or time: a rank whose pieces did not change writes the same bytes again.
 *
 * @module
 */
import type {
  ShardedState,
  StateTensor,
  StoreTransaction,
  StoreWriter,
} from "../core/contracts/checkpointer.ts";
import { bytesOf } from "../core/contracts/dtype.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import { isWhole } from "./boxes.ts";
import { BLOCK_BYTES, hashFile } from "./digest.ts";
import { type LayoutTensor, layoutSafetensors } from "./formats/safetensors/layout.ts";
import { type Chunk, encodeManifest, type ManifestFile, type ManifestTensor } from "./manifest.ts";
import type { OwnPiece } from "./replicas.ts";

/** Which rank writes, and into what. */
export interface RankWrite {
  readonly step: number;
  readonly rank: number;
  readonly worldSize: number;
  readonly state: ShardedState;
  /** The pieces that this rank is to write. */
  readonly pieces: readonly OwnPiece[];
}

/** A rank's data file. */
export function rankFile(rank: number): string {
  return `rank-${String(rank).padStart(5, "0")}.safetensors`;
}

/** A rank's part of the manifest, while a save is under way. */
export function partFile(rank: number): string {
  return `rank-${String(rank).padStart(5, "0")}.msgpack`;
}

interface Entry extends LayoutTensor, OwnPiece {}

/** Writes both files of a rank. @throws CheckpointError, or what a piece's `read` threw; then neither file counts. */
export async function writeRank(transaction: StoreTransaction, write: RankWrite): Promise<void> {
  const { file, chunks } = await writeData(transaction, write);
  const tensors = write.state.tensors.map(
    ({ name, dtype, shape }): ManifestTensor => ({ name, dtype, shape, chunks: chunks.get(name) ?? [] }),
  );
  const part = encodeManifest({
    step: write.step,
    worldSize: write.worldSize,
    createdAt: 0,
    tensors,
    files: [file],
    values: write.rank === 0 ? write.state.values : {},
    rankValues: [write.state.rankValues],
  });
  await writeFile(transaction, partFile(write.rank), async (writer) => writer.write(part));
}

/** Creates a file, lets `fill` write it, and makes it durable; on failure it is dropped. */
export async function writeFile(
  transaction: StoreTransaction,
  file: string,
  fill: (writer: StoreWriter) => Promise<void>,
): Promise<void> {
  const writer = await transaction.create(file);
  try {
    await fill(writer);
    await writer.close();
  } catch (error) {
    // The first error is the one to tell; the whole transaction goes anyway.
    await writer.abort().catch(() => undefined);
    throw error;
  }
}

async function writeData(
  transaction: StoreTransaction,
  { rank, worldSize, pieces }: RankWrite,
): Promise<{ file: ManifestFile; chunks: ReadonlyMap<string, readonly Chunk[]> }> {
  const name = rankFile(rank);
  const entries = pieces.map(({ tensor, piece }): Entry => {
    return {
      name: entryName(tensor, piece.offsets, isWhole(piece, tensor.shape)),
      dtype: tensor.dtype,
      shape: piece.sizes,
      tensor,
      piece,
    };
  });
  const layout = layoutSafetensors(entries, {
    format: "fsdp-checkpoint",
    version: "1",
    rank: String(rank),
    world_size: String(worldSize),
    chunks: describeChunks(entries),
  });
  const chunks = new Map<string, Chunk[]>();
  const hasher = hashFile();
  await writeFile(transaction, name, async (writer) => {
    const append = async (bytes: Uint8Array): Promise<void> => {
      // Hashed while the system writes.
      const written = writer.write(bytes);
      hasher.update(bytes);
      await written;
    };
    await append(layout.header);
    for (const { tensor: entry, begin, end } of layout.tensors) {
      const bytes = bytesOf(await entry.piece.read());
      if (bytes.length !== end - begin) {
        throw new CheckpointError(
          `tensor ${entry.tensor.name}: a piece gave ${bytes.length} bytes, its box takes ${end - begin}`,
        );
      }
      await append(bytes);
      const chunk = { offsets: entry.piece.offsets, sizes: entry.piece.sizes, file: name, begin, end };
      const known = chunks.get(entry.tensor.name);
      if (known === undefined) chunks.set(entry.tensor.name, [chunk]);
      else known.push(chunk);
    }
  });
  return { file: { name, block: BLOCK_BYTES, ...hasher.finish() }, chunks };
}

function entryName(tensor: StateTensor, offsets: readonly number[], whole: boolean): string {
  return whole ? tensor.name : `${tensor.name}@${offsets.join(",")}`;
}

/** For readers without the manifest: which box of which tensor each partial entry is, as JSON. */
function describeChunks(entries: readonly Entry[]): string {
  const partial = entries.filter(({ name, tensor }) => name !== tensor.name);
  const members = partial
    .map(
      ({ name, tensor, piece }) =>
        [name, { tensor: tensor.name, shape: tensor.shape, offsets: piece.offsets }] as const,
    )
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify(Object.fromEntries(members));
}

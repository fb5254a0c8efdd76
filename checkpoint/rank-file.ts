/**
 * What one rank contributes to a checkpoint: `rank-NNNNN.safetensors` with the pieces it writes, streamed and hashed on the
 * way; beside it `rank-NNNNN-constant.safetensors` with those that training does not change, if any; and
 * `rank-NNNNN.msgpack`, its part of the manifest, which the first rank merges and removes.
 *
 * A file's content does not depend on step or time: when its pieces did not change since the last checkpoint, that one's
 * file is shared, and stored once.
 *
 * @module
 */
import type {
  ShardedState,
  StateTensor,
  StoreTransaction,
  StoreWriter,
} from "../core/contracts/checkpointer.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import { allEnded } from "./agree.ts";
import { isWhole } from "./boxes.ts";
import { BLOCK_BYTES, type BlockDigest, type FileDigest, hashBlocks } from "./digest.ts";
import {
  type LayoutTensor,
  layoutSafetensors,
  type SafetensorsLayout,
} from "./formats/safetensors/layout.ts";
import type { StreamHasher } from "./hash-thread.ts";
import { type Chunk, encodeManifest, type ManifestFile, type ManifestTensor } from "./manifest.ts";
import { pieceBytes } from "./piece-stream.ts";
import type { OwnPiece } from "./replicas.ts";
import { type EarlierFiles, shareFile } from "./shared-files.ts";

/** Which rank writes, and into what. */
export interface RankWrite {
  readonly step: number;
  readonly rank: number;
  readonly worldSize: number;
  readonly state: ShardedState;
  /** The pieces that this rank is to write. */
  readonly pieces: readonly OwnPiece[];
  /** Files that may be shared. */
  readonly earlier: EarlierFiles;
  /** Starts the digest of a file. */
  readonly hash: () => StreamHasher;
}

/** A rank's data file. */
export function rankFile(rank: number): string {
  return `${stem(rank)}.safetensors`;
}

/** A rank's file of pieces that do not change. */
export function constantFile(rank: number): string {
  return `${stem(rank)}-constant.safetensors`;
}

/** A rank's part of the manifest, while a save is under way. */
export function partFile(rank: number): string {
  return `${stem(rank)}.msgpack`;
}

function stem(rank: number): string {
  return `rank-${String(rank).padStart(5, "0")}`;
}

/** Writes all files of a rank. @throws CheckpointError, or what a piece's `read` threw; then none of them counts. */
export async function writeRank(transaction: StoreTransaction, write: RankWrite): Promise<void> {
  const constant = write.pieces.filter(({ tensor }) => tensor.constant === true);
  const varying = write.pieces.filter(({ tensor }) => tensor.constant !== true);
  const chunks = new Map<string, Chunk[]>();
  const files: ManifestFile[] = [];
  files.push(await writeData(transaction, write, rankFile(write.rank), varying, chunks, false));
  if (constant.length > 0) {
    files.push(await writeData(transaction, write, constantFile(write.rank), constant, chunks, true));
  }
  const part = encodeManifest({
    step: write.step,
    worldSize: write.worldSize,
    createdAt: 0,
    tensors: write.state.tensors.map(
      ({ name, dtype, shape }): ManifestTensor => ({ name, dtype, shape, chunks: chunks.get(name) ?? [] }),
    ),
    files,
    values: write.rank === 0 ? write.state.values : {},
    rankValues: [write.state.rankValues],
  });
  await writeFile(transaction, partFile(write.rank), part.length, async (writer) => writer.write(part));
}

/** Creates a file of `bytes` bytes, lets `fill` write it, and makes it durable; on failure it is dropped. */
export async function writeFile(
  transaction: StoreTransaction,
  file: string,
  bytes: number,
  fill: (writer: StoreWriter) => Promise<void>,
): Promise<void> {
  const writer = await transaction.create(file, bytes);
  try {
    await fill(writer);
    await writer.close();
  } catch (error) {
    // The first error is the one to tell; the whole transaction goes anyway.
    await writer.abort().catch(() => undefined);
    throw error;
  }
}

interface Entry extends LayoutTensor, OwnPiece {}

/** Writes or shares one data file, and adds its chunks by tensor. `unchanged` says that it likely is in the last checkpoint. */
async function writeData(
  transaction: StoreTransaction,
  { rank, worldSize, earlier, hash }: RankWrite,
  name: string,
  pieces: readonly OwnPiece[],
  chunks: Map<string, Chunk[]>,
  unchanged: boolean,
): Promise<ManifestFile> {
  const layout = layoutOf(rank, worldSize, pieces);
  for (const { tensor: entry, begin, end } of layout.tensors) {
    const chunk = { offsets: entry.piece.offsets, sizes: entry.piece.sizes, file: name, begin, end };
    const known = chunks.get(entry.tensor.name);
    if (known === undefined) chunks.set(entry.tensor.name, [chunk]);
    else known.push(chunk);
  }
  const listed = (digest: FileDigest): ManifestFile => ({ name, block: BLOCK_BYTES, ...digest });
  if (unchanged && earlier.files.length > 0) {
    const digest = await streamFile(layout, hash(), undefined);
    if (await shareFile(transaction, name, digest, earlier)) return listed(digest);
  }
  const writer = await transaction.create(name, layout.fileBytes);
  try {
    if (transaction.digests === true) {
      const blocks = await streamFile(layout, hashBlocks(), writer);
      await writer.close();
      return listed({ ...blocks, sha256: storedDigest(writer, name) });
    }
    const digest = await streamFile(layout, hash(), writer);
    if (earlier.files.some((file) => file.sha256 === digest.sha256)) {
      await writer.abort();
      if (await shareFile(transaction, name, digest, earlier)) return listed(digest);
      await writeFile(
        transaction,
        name,
        layout.fileBytes,
        async (again) => void (await streamFile(layout, hash(), again)),
      );
    } else {
      await writer.close();
    }
    return listed(digest);
  } catch (error) {
    await writer.abort().catch(() => undefined);
    throw error;
  }
}

function storedDigest({ sha256 }: StoreWriter, file: string): string {
  if (sha256 !== undefined) return sha256;
  throw new CheckpointError(`file ${file}: the store did not tell its SHA-256`);
}

/** Hashes a file's bytes, and writes them if there is a writer. */
async function streamFile<D extends BlockDigest>(
  layout: SafetensorsLayout<Entry>,
  hasher: StreamHasher<D>,
  writer: StoreWriter | undefined,
): Promise<D> {
  const append = async (bytes: Uint8Array): Promise<void> => {
    // Hashed while the system writes.
    await allEnded([writer?.write(bytes), hasher.update(bytes)]);
  };
  try {
    await append(layout.header);
    for await (const bytes of pieceBytes(layout.tensors.map(({ tensor }) => tensor))) await append(bytes);
    return await hasher.finish();
  } catch (error) {
    hasher.drop?.();
    throw error;
  }
}

function layoutOf(rank: number, worldSize: number, pieces: readonly OwnPiece[]): SafetensorsLayout<Entry> {
  const entries = pieces.map(({ tensor, piece }): Entry => {
    const name = entryName(tensor, piece.offsets, isWhole(piece, tensor.shape));
    return { name, dtype: tensor.dtype, shape: piece.sizes, tensor, piece };
  });
  return layoutSafetensors(entries, {
    format: "fsdp-checkpoint",
    version: "1",
    rank: String(rank),
    world_size: String(worldSize),
    chunks: describeChunks(entries),
  });
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

/**
 * Reads a PyTorch Distributed Checkpoint: a folder with `.metadata` and `__<rank>_<n>.distcp` files. Any box of any tensor,
 * reading just the bytes that it needs; nothing is executed, and no file outside the folder is opened.
 *
 * Follows torch/distributed/checkpoint/filesystem.py.
 *
 * @module
 */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { CheckpointFault, TensorReader } from "../../../core/contracts/checkpointer.ts";
import { hostArray, STORED_DTYPES, type StoredArray } from "../../../core/contracts/dtype.ts";
import { CheckpointError, ShapeError } from "../../../core/contracts/errors.ts";
import type { Box } from "../../../core/contracts/shard.ts";
import { indexBoxes } from "../../box-index.ts";
import { formatBox, insideShape, intersectBoxes, volume, wholeBox } from "../../boxes.ts";
import { listFaults } from "../../manifest.ts";
import { openFile, reasonOf, roomFor } from "../byte-source.ts";
import type { PickleValue } from "../pickle/values.ts";
import { openTorchFile, type TorchFile } from "../torch/reader.ts";
import { type TensorValue, tensorOf } from "../torch/tensor-value.ts";
import { type FilePool, filePool } from "./file-pool.ts";
import {
  type DcpChunk,
  type DcpItem,
  type DcpMetadata,
  type DcpTensor,
  decodeMetadata,
  MAX_METADATA_BYTES,
} from "./metadata.ts";
import { metadataFaults } from "./metadata-check.ts";

/** The file that makes a folder a Distributed Checkpoint. */
export const METADATA_FILE = ".metadata";

/** A reader that also gives what the general one has no words for. */
export interface DcpReader extends TensorReader {
  readonly metadata: DcpMetadata;
  /** Bytes of each data file. */
  readonly lengths: ReadonlyMap<string, number>;
  tensor(name: string): DcpTensor;
  /** A value that is no tensor. @throws CheckpointError when it is more than plain data. */
  value(name: string): Promise<PickleValue>;
  /** Reads every item and compares it with its checksums and the metadata. */
  verify(): Promise<readonly CheckpointFault[]>;
}

/** Opens a checkpoint's folder. @throws CheckpointError that lists every fault of its metadata. */
export async function openDcp(folder: string): Promise<DcpReader> {
  const metadata = await readMetadata(folder);
  const lengths = await fileLengths(folder);
  const faults = metadataFaults(metadata, lengths);
  if (faults.length > 0) throw new CheckpointError(`open of ${folder}: ${listFaults(faults)}`);
  return readerOf(folder, metadata, lengths);
}

function readerOf(folder: string, metadata: DcpMetadata, lengths: ReadonlyMap<string, number>): DcpReader {
  const files = filePool((file) => openFile(join(folder, file), { refuseLinks: true }));
  const tensors = new Map(metadata.tensors.map((tensor) => [tensor.name, tensor]));
  const values = new Map(metadata.values.map((value) => [value.name, value]));
  const tensorNamed = (name: string): DcpTensor => {
    const tensor = tensors.get(name);
    if (tensor === undefined)
      throw new CheckpointError(`read of ${folder}: no tensor ${JSON.stringify(name)}`);
    return tensor;
  };
  const readValue = (name: string): Promise<PickleValue> =>
    explained(folder, name, async () => {
      const place = values.get(name);
      if (place === undefined) throw new CheckpointError("no such value");
      return (await openItem(files, place)).value;
    });
  const read = async (name: string, box?: Box): Promise<StoredArray> => {
    const tensor = tensorNamed(name);
    const target = box ?? wholeBox(tensor.shape);
    if (!insideShape(target, tensor.shape)) {
      throw new ShapeError(
        `read of ${folder}: box ${formatBox(target)} of ${name} is outside its shape [${tensor.shape}]`,
      );
    }
    return explained(folder, name, () => readBox(files, tensor, target));
  };
  return {
    metadata,
    lengths,
    names: metadata.tensors.map(({ name }) => name),
    has: (name) => tensors.has(name),
    info: (name) => tensorNamed(name),
    tensor: tensorNamed,
    read,
    value: readValue,
    async verify(): Promise<readonly CheckpointFault[]> {
      const faults: CheckpointFault[] = [];
      const attempt = async (
        name: string,
        { file }: DcpItem,
        check: () => Promise<unknown>,
      ): Promise<void> => {
        await check().catch((error: unknown) =>
          faults.push({ file, problem: `${name}: ${reasonOf(error)}` }),
        );
      };
      for (const value of metadata.values) await attempt(value.name, value, () => openItem(files, value));
      for (const tensor of metadata.tensors) {
        for (const chunk of tensor.chunks) {
          await attempt(`${tensor.name} ${formatBox(chunk)}`, chunk, () => checkChunk(files, tensor, chunk));
        }
      }
      return faults;
    },
    close: () => files.close(),
  };
}

async function readBox(files: FilePool, tensor: DcpTensor, target: Box): Promise<StoredArray> {
  const elements = volume(target.sizes);
  const bytes = roomFor(tensor.name, elements * STORED_DTYPES[tensor.dtype].bytes);
  const full = tensor.chunks.filter((chunk) => !chunk.sizes.includes(0));
  for (const i of elements === 0 ? [] : indexBoxes(full).overlapping(target)) {
    const chunk = full[i]!;
    const region = intersectBoxes(chunk, target);
    const { item, stored } = await openChunk(files, tensor, chunk);
    // Items know nothing of the whole tensor: their boxes begin at 0.
    const inChunk = (box: Box): Box => ({
      offsets: box.offsets.map((offset, d) => offset - chunk.offsets[d]!),
      sizes: box.sizes,
    });
    await item.place(stored, inChunk(region), bytes, inChunk(target));
  }
  return hostArray(tensor.dtype, bytes.buffer, 0, elements);
}

async function checkChunk(files: FilePool, tensor: DcpTensor, chunk: DcpChunk): Promise<void> {
  // Of several empty chunks at one place only one is stored, whatever the sizes of the others.
  if (chunk.sizes.includes(0)) {
    await openItem(files, chunk);
    return;
  }
  const { item, stored } = await openChunk(files, tensor, chunk);
  await item.read(stored);
}

async function openChunk(
  files: FilePool,
  tensor: DcpTensor,
  chunk: DcpChunk,
): Promise<{ item: TorchFile; stored: TensorValue }> {
  const item = await openItem(files, chunk);
  const stored = tensorOf(item.value);
  const same = stored?.dtype === tensor.dtype && String(stored.shape) === String(chunk.sizes);
  if (stored === undefined || !same) {
    const found = stored === undefined ? "no tensor" : `${stored.dtype} [${stored.shape}]`;
    throw new CheckpointError(
      `its chunk ${formatBox(chunk)} in ${chunk.file} is ${found}, due is ${tensor.dtype} [${chunk.sizes}]`,
    );
  }
  return { item, stored };
}

async function openItem(files: FilePool, { file, begin, end }: DcpItem): Promise<TorchFile> {
  return await openTorchFile(files.part(file, begin, end));
}

async function explained<T>(folder: string, name: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    throw new CheckpointError(`read of ${folder}: ${name}: ${reasonOf(error)}`, { cause: error });
  }
}

/** Reads and decodes a folder's metadata. @throws CheckpointError. */
async function readMetadata(folder: string): Promise<DcpMetadata> {
  const file = await openFile(join(folder, METADATA_FILE), { refuseLinks: true });
  try {
    if (file.length > MAX_METADATA_BYTES) {
      throw new CheckpointError(
        `${METADATA_FILE} has ${file.length} bytes, allowed are ${MAX_METADATA_BYTES}`,
      );
    }
    return decodeMetadata(await file.read(0, file.length));
  } catch (error) {
    throw new CheckpointError(`open of ${folder}: ${reasonOf(error)}`, { cause: error });
  } finally {
    await file.close();
  }
}

async function fileLengths(folder: string): Promise<ReadonlyMap<string, number>> {
  try {
    const files = (await readdir(folder)).filter((file) => file.endsWith(".distcp")).sort();
    return new Map(
      await Promise.all(files.map(async (file) => [file, (await stat(join(folder, file))).size] as const)),
    );
  } catch (error) {
    throw new CheckpointError(`open of ${folder}: ${reasonOf(error)}`, { cause: error });
  }
}

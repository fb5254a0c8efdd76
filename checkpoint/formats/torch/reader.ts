/**
 * Reads what torch.save wrote: a zip with a pickle and one record per storage. Tensors are read by box, by byte ranges.
 *
 * Follows torch/serialization.py and caffe2/serialize/inline_container.cc.
 *
 * @module
 */
import { crc32 } from "node:zlib";
import { hostArray, STORED_DTYPES, type StoredArray } from "../../../core/contracts/dtype.ts";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import type { Box } from "../../../core/contracts/shard.ts";
import { volume, wholeBox } from "../../boxes.ts";
import { batches, placeBatch, stridedTransfer } from "../../transfer.ts";
import { type ByteSource, roomFor, withEndsAtHand } from "../byte-source.ts";
import { readPickle } from "../pickle/reader.ts";
import type { PickleValue } from "../pickle/values.ts";
import { openZip, type ZipEntry } from "../zip/reader.ts";
import { isRowMajor, TENSOR_GLOBALS, type TensorValue } from "./tensor-value.ts";

/** Bytes at either end of an item that are read at once: what describes a tensor takes about 1500. */
const ENDS = 4096;
/** Largest pickle of one file. */
const MAX_PICKLE_BYTES = 16 * 1024 * 1024;

/** A file, or an item of one, that is open. */
export interface TorchFile {
  readonly value: PickleValue;
  /** Places a region of a tensor, row-major, into `target`, whose own box is given. @throws CheckpointError. */
  place(tensor: TensorValue, region: Box, target: Uint8Array, targetBox: Box): Promise<void>;
  /** Reads a whole tensor. @throws CheckpointError. */
  read(tensor: TensorValue): Promise<StoredArray>;
}

/** Opens what torch.save wrote into `source`. @throws CheckpointError when it is not of that kind. */
export async function openTorchFile(whole: ByteSource): Promise<TorchFile> {
  const source = await withEndsAtHand(whole, ENDS);
  const zip = await openZip(source);
  // The folder is named after the file that it was saved to.
  const root = /^[^/]{1,255}(?=\/)/.exec(zip.names[0] ?? "")?.[0];
  if (root === undefined || !zip.names.every((name) => name.startsWith(`${root}/`))) {
    throw new CheckpointError("torch file: its records are not in one folder");
  }
  if (!zip.names.includes(`${root}/version`)) throw new CheckpointError("torch file: it has no version");
  if (zip.names.includes(`${root}/byteorder`)) {
    const order = new TextDecoder().decode(await zip.read(`${root}/byteorder`, 16));
    if (order !== "little")
      throw new CheckpointError(`torch file: byte order ${JSON.stringify(order)}, allowed is little`);
  }
  const value = readPickle(await zip.read(`${root}/data.pkl`, MAX_PICKLE_BYTES), TENSOR_GLOBALS);

  const storageOf = async (tensor: TensorValue): Promise<ZipEntry> => {
    const record = `${root}/data/${tensor.storage}`;
    const entry = await zip.find(record);
    const due = tensor.storageNumel * STORED_DTYPES[tensor.dtype].bytes;
    if (entry === undefined || entry.end - entry.begin !== due) {
      const found = entry === undefined ? "is missing" : `has ${entry.end - entry.begin} bytes`;
      throw new CheckpointError(`torch file: ${record} ${found}, due are ${due}`);
    }
    return entry;
  };
  const place = async (
    tensor: TensorValue,
    region: Box,
    target: Uint8Array,
    targetBox: Box,
  ): Promise<void> => {
    if (volume(region.sizes) === 0) return;
    const storage = await storageOf(tensor);
    const { bytes } = STORED_DTYPES[tensor.dtype];
    if (!isRowMajor(tensor)) {
      const packed = gather(tensor, await readRecord(source, storage), bytes);
      const transfer = stridedTransfer("", 0, wholeBox(tensor.shape), targetBox, region, bytes);
      for (const batch of batches(transfer))
        placeBatch(batch, packed.subarray(batch.begin, batch.end), target);
      return;
    }
    const begin = storage.begin + tensor.offset * bytes;
    const check = checksum(storage);
    for (const batch of batches(
      stridedTransfer("", begin, wholeBox(tensor.shape), targetBox, region, bytes),
    )) {
      const read = await source.read(batch.begin, batch.end);
      check.update(batch.begin, read);
      placeBatch(batch, read, target);
    }
    check.finish();
  };
  return {
    value,
    place,
    async read(tensor: TensorValue): Promise<StoredArray> {
      const elements = volume(tensor.shape);
      // Before room is made for it: what it claims to have must be there.
      if (elements > 0) await storageOf(tensor);
      const target = roomFor(`storage ${tensor.storage}`, elements * STORED_DTYPES[tensor.dtype].bytes);
      const box = wholeBox(tensor.shape);
      await place(tensor, box, target, box);
      return hostArray(tensor.dtype, target.buffer, 0, elements);
    },
  };
}

async function readRecord(source: ByteSource, record: ZipEntry): Promise<Uint8Array> {
  const bytes = await source.read(record.begin, record.end);
  const check = checksum(record);
  check.update(record.begin, bytes);
  check.finish();
  return bytes;
}

/** Compares a record with its CRC when all of it was read in order; of a part, nothing can be said. */
function checksum(record: ZipEntry): { update(begin: number, bytes: Uint8Array): void; finish(): void } {
  let at = record.begin;
  let crc = 0;
  return {
    update(begin: number, bytes: Uint8Array): void {
      if (begin !== at) return;
      crc = crc32(bytes, crc);
      at += bytes.length;
    },
    finish(): void {
      if (at === record.end && crc !== record.crc32) {
        throw new CheckpointError("torch file: a storage does not match its checksum");
      }
    },
  };
}

/** The elements of a strided tensor, row-major. */
function gather({ shape, strides, offset }: TensorValue, storage: Uint8Array, bytes: number): Uint8Array {
  const packed = new Uint8Array(volume(shape) * bytes);
  const index = new Array<number>(shape.length).fill(0);
  let from = offset;
  for (let to = 0; to < packed.length; to += bytes) {
    for (let i = 0; i < bytes; i++) packed[to + i] = storage[from * bytes + i]!;
    for (let d = shape.length - 1; d >= 0; d--) {
      index[d]! += 1;
      from += strides[d]!;
      if (index[d]! < shape[d]!) break;
      from -= strides[d]! * shape[d]!;
      index[d] = 0;
    }
  }
  return packed;
}

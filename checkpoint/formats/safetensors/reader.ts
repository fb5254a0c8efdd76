/**
 * Reads tensors of a safetensors file by box, by byte ranges: never the whole file, and beside the result no more than
 * one batch.
 *
 * @module
 */
import type { TensorReader } from "../../../core/contracts/checkpointer.ts";
import {
  hostArray,
  STORED_DTYPES,
  type StoredArray,
  type StoredDType,
} from "../../../core/contracts/dtype.ts";
import { CheckpointError, ShapeError } from "../../../core/contracts/errors.ts";
import type { Box } from "../../../core/contracts/shard.ts";
import { formatBox, insideShape, volume, wholeBox } from "../../boxes.ts";
import { batches, placeBatch, stridedTransfer } from "../../transfer.ts";
import { type FileSource, openFile, reasonOf, roomFor } from "../byte-source.ts";
import { dtypeOf } from "./dtypes.ts";
import { parseHeader, parseHeaderLength, type SafetensorsEntry, type SafetensorsHeader } from "./header.ts";

/** A reader that also gives what the general one has no words for. */
export interface SafetensorsReader extends TensorReader {
  readonly header: SafetensorsHeader;
  /** Of the whole file. */
  readonly byteLength: number;
  /** The bytes of a whole tensor of any dtype. */
  readBytes(name: string): Promise<Uint8Array>;
}

/**
 * Opens a file and checks its header.
 *
 * @param limit longest header accepted, in bytes
 * @throws CheckpointError when the file cannot be read or is not valid safetensors.
 */
export async function openSafetensors(path: string, limit?: number): Promise<SafetensorsReader> {
  const file = await openFile(path);
  try {
    const length = parseHeaderLength(await file.read(0, Math.min(8, file.length)), file.length, limit);
    const header = parseHeader(await file.read(8, 8 + length), file.length);
    return readerOf(file, path, header);
  } catch (error) {
    await file.close();
    throw new CheckpointError(`open of ${path}: ${reasonOf(error)}`, { cause: error });
  }
}

function readerOf(file: FileSource, path: string, header: SafetensorsHeader): SafetensorsReader {
  const entryOf = (name: string): SafetensorsEntry => {
    const entry = header.tensors.get(name);
    if (entry === undefined) throw new CheckpointError(`read of ${path}: no tensor ${JSON.stringify(name)}`);
    return entry;
  };
  const info = (name: string): { readonly dtype: StoredDType; readonly shape: readonly number[] } => {
    const { dtype: stored, shape } = entryOf(name);
    const dtype = dtypeOf(stored);
    if (dtype === undefined) {
      const known = Object.keys(STORED_DTYPES).join(", ");
      throw new CheckpointError(
        `read of ${path}: ${name} has dtype ${stored}, readable as arrays are ${known}`,
      );
    }
    return { dtype, shape };
  };
  return {
    header,
    byteLength: file.length,
    names: [...header.tensors.keys()],
    has: (name) => header.tensors.has(name),
    info,
    async read(name: string, box?: Box): Promise<StoredArray> {
      const { dtype, shape } = info(name);
      const whole = wholeBox(shape);
      const target = box ?? whole;
      if (!insideShape(target, shape)) {
        throw new ShapeError(
          `read of ${path}: box ${formatBox(target)} of ${name} is outside its shape [${shape}]`,
        );
      }
      const { bytes } = STORED_DTYPES[dtype];
      const result = roomFor(name, volume(target.sizes) * bytes);
      const begin = header.dataBegin + entryOf(name).begin;
      if (result.length > 0) {
        for (const batch of batches(stridedTransfer(path, begin, whole, target, target, bytes))) {
          placeBatch(batch, await file.read(batch.begin, batch.end), result);
        }
      }
      return hostArray(dtype, result.buffer, 0, volume(target.sizes));
    },
    readBytes: (name) => {
      const { begin, end } = entryOf(name);
      return file.read(header.dataBegin + begin, header.dataBegin + end);
    },
    close: () => file.close(),
  };
}

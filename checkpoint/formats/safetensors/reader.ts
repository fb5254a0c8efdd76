/**
 * Reads tensors of a safetensors file by box, by byte ranges: never the whole file, and beside the result no more than
 * one batch.
 *
 * @module
 */
import { type FileHandle, open } from "node:fs/promises";
import type { TensorReader } from "../../../core/contracts/checkpointer.ts";
import { DTYPES, type DType, type HostArray, hostArray } from "../../../core/contracts/dtype.ts";
import { CheckpointError, ShapeError } from "../../../core/contracts/errors.ts";
import type { Box } from "../../../core/contracts/shard.ts";
import { formatBox, insideShape, volume, wholeBox } from "../../boxes.ts";
import { batches, placeBatch, stridedTransfer } from "../../transfer.ts";
import { dtypeOf } from "./dtypes.ts";
import { parseHeader, parseHeaderLength, type SafetensorsEntry, type SafetensorsHeader } from "./header.ts";

/** A reader that also gives what the general one has no words for. */
export interface SafetensorsReader extends TensorReader {
  readonly header: SafetensorsHeader;
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
  const file = await open(path, "r").catch((error: unknown) => {
    throw new CheckpointError(`open of ${path}: ${String(error)}`, { cause: error });
  });
  try {
    const { size } = await file.stat();
    const first = await readRange(file, path, 0, Math.min(8, size));
    const length = parseHeaderLength(first, size, limit);
    const header = parseHeader(await readRange(file, path, 8, 8 + length), size);
    return readerOf(file, path, header);
  } catch (error) {
    await file.close();
    if (!(error instanceof CheckpointError))
      throw new CheckpointError(`open of ${path}: ${String(error)}`, { cause: error });
    throw new CheckpointError(`open of ${path}: ${error.message}`, { cause: error });
  }
}

function readerOf(file: FileHandle, path: string, header: SafetensorsHeader): SafetensorsReader {
  const entryOf = (name: string): SafetensorsEntry => {
    const entry = header.tensors.get(name);
    if (entry === undefined) throw new CheckpointError(`read of ${path}: no tensor ${JSON.stringify(name)}`);
    return entry;
  };
  const info = (name: string): { readonly dtype: DType; readonly shape: readonly number[] } => {
    const { dtype: stored, shape } = entryOf(name);
    const dtype = dtypeOf(stored);
    if (dtype === undefined) {
      const known = Object.keys(DTYPES).join(", ");
      throw new CheckpointError(
        `read of ${path}: ${name} has dtype ${stored}, readable as arrays are ${known}`,
      );
    }
    return { dtype, shape };
  };
  return {
    header,
    names: [...header.tensors.keys()],
    has: (name) => header.tensors.has(name),
    info,
    async read(name: string, box?: Box): Promise<HostArray> {
      const { dtype, shape } = info(name);
      const whole = wholeBox(shape);
      const target = box ?? whole;
      if (!insideShape(target, shape)) {
        throw new ShapeError(
          `read of ${path}: box ${formatBox(target)} of ${name} is outside its shape [${shape}]`,
        );
      }
      const { bytes } = DTYPES[dtype];
      const result = new Uint8Array(volume(target.sizes) * bytes);
      const begin = header.dataBegin + entryOf(name).begin;
      if (result.length > 0) {
        for (const batch of batches(stridedTransfer(path, begin, whole, target, target, bytes))) {
          placeBatch(batch, await readRange(file, path, batch.begin, batch.end), result);
        }
      }
      return hostArray(dtype, result.buffer, 0, volume(target.sizes));
    },
    readBytes: (name) => {
      const { begin, end } = entryOf(name);
      return readRange(file, path, header.dataBegin + begin, header.dataBegin + end);
    },
    close: () => file.close(),
  };
}

/** Bytes `[begin, end)`; a file that was cut after its header was read does not pass. */
async function readRange(file: FileHandle, path: string, begin: number, end: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(end - begin);
  for (let at = 0; at < bytes.length; ) {
    // At most 1 GiB a call: runtimes refuse or cut counts from 2 GiB.
    const { bytesRead } = await file.read(bytes, at, Math.min(bytes.length - at, 1 << 30), begin + at);
    if (bytesRead === 0)
      throw new CheckpointError(`read of ${path}: it ends at byte ${begin + at}, due is ${end}`);
    at += bytesRead;
  }
  return bytes;
}

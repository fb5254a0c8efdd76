/**
 * The header of a safetensors file: 8 bytes of length, then JSON. Parsing is stricter than the reference, which accepts
 * duplicate and empty names, extra fields and leading space: nothing ambiguous passes, so that two readers can never
 * see two different files.
 *
 * Format: https://huggingface.co/docs/safetensors, safetensors/src/tensor.rs.
 *
 * @module
 */
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { SAFETENSORS_BITS } from "./dtypes.ts";
import { type JsonCursor, takeIntegers, takeObject, takeString, unexpected } from "./json.ts";

/** Longest header that the format allows, in bytes. */
export const MAX_HEADER_BYTES: number = 100_000_000;

const MAX_TENSORS = 1_000_000;

/** One tensor of a file. */
export interface SafetensorsEntry {
  /** Safetensors name, for example `"BF16"`. */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** First byte, counted from the start of the data. */
  readonly begin: number;
  /** One past the last byte. */
  readonly end: number;
}

/** A checked header. */
export interface SafetensorsHeader {
  /** In the header's order. */
  readonly tensors: ReadonlyMap<string, SafetensorsEntry>;
  readonly metadata: ReadonlyMap<string, string>;
  /** Where the data begins in the file, in bytes. */
  readonly dataBegin: number;
}

/**
 * Length of the JSON, from a file's first 8 bytes.
 *
 * @param fileBytes length of the whole file
 * @param limit longest JSON accepted, for uploads less than the format's 100 MB
 * @throws CheckpointError when the file cannot have that header.
 */
export function parseHeaderLength(
  first: Uint8Array,
  fileBytes: number,
  limit: number = MAX_HEADER_BYTES,
): number {
  if (first.length < 8 || fileBytes < 8) {
    throw new CheckpointError(`safetensors header: the file has ${fileBytes} bytes, at least 8 are needed`);
  }
  const length = new DataView(first.buffer, first.byteOffset, 8).getBigUint64(0, true);
  if (length === 0n || length > BigInt(limit)) {
    throw new CheckpointError(`safetensors header: its length is ${length}, allowed is 1 to ${limit}`);
  }
  if (length > BigInt(fileBytes - 8)) {
    throw new CheckpointError(
      `safetensors header: its length is ${length}, the file has ${fileBytes - 8} bytes left`,
    );
  }
  return Number(length);
}

/**
 * Parses and checks the JSON of a header.
 *
 * @param json exactly the bytes that the length names
 * @throws CheckpointError that says what is wrong, by tensor where one is at fault.
 */
export function parseHeader(json: Uint8Array, fileBytes: number): SafetensorsHeader {
  const tensors = new Map<string, SafetensorsEntry>();
  const metadata = new Map<string, string>();
  try {
    const cursor: JsonCursor = { text: decode(json), at: 0 };
    if (cursor.text[0] !== "{") throw unexpected(cursor, '"{"');
    takeObject(cursor, (name) => {
      if (name === "__metadata__") takeObject(cursor, (key) => metadata.set(key, takeString(cursor)));
      else if (name === "") throw new CheckpointError("a tensor's name is empty");
      else if (tensors.size === MAX_TENSORS) throw new CheckpointError(`more than ${MAX_TENSORS} tensors`);
      else tensors.set(name, takeEntry(cursor, name));
    });
    while (cursor.text[cursor.at] === " ") cursor.at++;
    if (cursor.at < cursor.text.length) throw unexpected(cursor, "nothing but spaces");
    checkCovered(tensors, fileBytes - 8 - json.length);
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    throw new CheckpointError(`safetensors header: ${error.message}`, { cause: error });
  }
  return { tensors, metadata, dataBegin: 8 + json.length };
}

function decode(json: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(json);
  } catch (error) {
    throw new CheckpointError("it is not valid UTF-8", { cause: error });
  }
}

function takeEntry(cursor: JsonCursor, name: string): SafetensorsEntry {
  const tensor = `tensor ${JSON.stringify(name)}`;
  let dtype: string | undefined;
  let shape: number[] | undefined;
  let range: number[] | undefined;
  takeObject(cursor, (field) => {
    if (field === "dtype") dtype = takeString(cursor);
    else if (field === "shape") shape = takeIntegers(cursor);
    else if (field === "data_offsets") range = takeIntegers(cursor);
    else throw new CheckpointError(`${tensor}: unknown field ${JSON.stringify(field)}`);
  });
  if (dtype === undefined || shape === undefined || range === undefined) {
    throw new CheckpointError(`${tensor}: dtype, shape and data_offsets are all needed`);
  }
  const [begin, end] = range;
  if (begin === undefined || end === undefined || range.length !== 2 || end < begin) {
    throw new CheckpointError(
      `${tensor}: data_offsets are [${range}], allowed is [begin, end] with begin <= end`,
    );
  }
  const bytes = byteLength(tensor, dtype, shape);
  if (end - begin !== bytes) {
    throw new CheckpointError(
      `${tensor}: ${dtype} of shape [${shape}] takes ${bytes} bytes, data_offsets give ${end - begin}`,
    );
  }
  return { dtype, shape, begin, end };
}

function byteLength(tensor: string, dtype: string, shape: readonly number[]): number {
  const bits = SAFETENSORS_BITS.get(dtype);
  if (bits === undefined) {
    const known = [...SAFETENSORS_BITS.keys()].join(", ");
    throw new CheckpointError(`${tensor}: unknown dtype ${JSON.stringify(dtype)}, known are ${known}`);
  }
  if (shape.includes(0)) return 0;
  let total = bits;
  for (const extent of shape) {
    total *= extent;
    if (!Number.isSafeInteger(total)) throw new CheckpointError(`${tensor}: shape [${shape}] is too large`);
  }
  if (total % 8 !== 0) {
    throw new CheckpointError(`${tensor}: ${dtype} of shape [${shape}] takes ${total} bits, not whole bytes`);
  }
  return total / 8;
}

/** Tensors must cover the data without overlap, hole or rest, so that no byte is hidden and none is read twice. */
function checkCovered(tensors: ReadonlyMap<string, SafetensorsEntry>, dataBytes: number): void {
  const sorted = [...tensors].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  let at = 0;
  for (const [name, entry] of sorted) {
    if (entry.begin !== at) {
      const problem = entry.begin > at ? "leaves a hole before it" : "overlaps another";
      throw new CheckpointError(
        `tensor ${JSON.stringify(name)}: begins at ${entry.begin}, ${problem}; due is ${at}`,
      );
    }
    at = entry.end;
  }
  if (at !== dataBytes)
    throw new CheckpointError(`tensors take ${at} bytes, the file has ${dataBytes} bytes of data`);
}

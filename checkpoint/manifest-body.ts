/**
 * The body of a manifest as it lies in the file, by version.
 *
 * Version 2: chunks are flat lists of integers, files are named by number, checksums are packed, so that of a hundred
 * thousand chunks a reader makes no more objects than it hands out. Version 1 had a map for every chunk.
 *
 * @module
 */
import * as v from "valibot";
import type { Value } from "../core/contracts/checkpointer.ts";
import { STORED_DTYPES, type StoredDType } from "../core/contracts/dtype.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import { volume } from "./boxes.ts";
import { BLOCK_BYTES } from "./digest.ts";
import type { Chunk, Manifest, ManifestFile, ManifestTensor } from "./manifest.ts";
import type { Plain } from "./msgpack.ts";
import { isStoreName } from "./stores/names.ts";

/** The version that is written. */
export const VERSION = 2;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const counts = v.custom<readonly number[]>(isCounts, "not a list of integers from 0 to 2^53 - 1");
const extents = v.pipe(counts, v.maxLength(32));
const tensorName = v.pipe(v.string(), v.minLength(1), v.maxLength(4096));
const dtypeName = v.picklist(Object.keys(STORED_DTYPES) as StoredDType[]);
const fileName = v.pipe(v.string(), v.check(isStoreName, "not a valid file name"));
const values = v.custom<Readonly<Record<string, Value>>>(isValueRecord, "not an object of plain values");

const common = {
  step: count,
  worldSize: v.pipe(count, v.minValue(1), v.maxValue(1_000_000)),
  createdAt: count,
  values,
  rankValues: v.array(values),
};
const tensor = { name: tensorName, dtype: dtypeName, shape: extents };
const file = {
  name: fileName,
  length: count,
  sha256: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
  block: v.literal(BLOCK_BYTES),
};
const MAX_TENSORS = 1_000_000;

const schema2 = v.strictObject({
  ...common,
  /** Chunks one after the other: number of the file, first byte there, offsets, sizes. */
  tensors: v.pipe(v.array(v.strictObject({ ...tensor, chunks: counts })), v.maxLength(MAX_TENSORS)),
  /** Checksums as little-endian 32-bit words. */
  files: v.array(v.strictObject({ ...file, crc32: v.instance(Uint8Array) })),
});

const chunk1 = v.strictObject({ offsets: extents, sizes: extents, file: fileName, begin: count, end: count });
const schema1 = v.strictObject({
  ...common,
  tensors: v.pipe(v.array(v.strictObject({ ...tensor, chunks: v.array(chunk1) })), v.maxLength(MAX_TENSORS)),
  files: v.array(v.strictObject({ ...file, crc32: v.array(v.pipe(count, v.maxValue(0xffffffff))) })),
});

/** How a body of each version becomes a manifest. */
const READERS: readonly ((body: unknown) => Manifest)[] = [(body) => checked(schema1, body), read2];

/** A manifest's body in the version that is written. @throws CheckpointError for a chunk of a file that is not listed. */
export function encodeBody({ tensors, files, ...rest }: Manifest): Plain {
  const numbers = new Map(files.map(({ name }, i) => [name, i]));
  const flat = ({ offsets, sizes, file, begin }: Chunk): readonly number[] => {
    const number = numbers.get(file);
    if (number === undefined) throw new CheckpointError(`manifest: a chunk in ${file}, which is not listed`);
    return [number, begin, ...offsets, ...sizes];
  };
  return {
    ...rest,
    tensors: tensors.map(({ name, dtype, shape, chunks }) => ({
      name,
      dtype,
      shape,
      chunks: chunks.flatMap(flat),
    })),
    files: files.map(({ name, length, sha256, block, crc32 }) => ({
      name,
      length,
      sha256,
      block,
      crc32: packWords(crc32),
    })),
  };
}

/** The manifest in a body of `version`. @throws CheckpointError that names the field which is not as it must be. */
export function decodeBodyOf(version: number, body: unknown): Manifest {
  const reader = READERS[version - 1];
  if (reader === undefined) {
    throw new CheckpointError(`it has version ${version}, versions up to ${VERSION} can be read`);
  }
  return reader(body);
}

/** What a schema makes of an input. @throws CheckpointError that names the field at fault. */
export function checked<const S extends v.GenericSchema>(schema: S, input: unknown): v.InferOutput<S> {
  const result = v.safeParse(schema, input, { abortEarly: true });
  if (result.success) return result.output;
  const issue = result.issues[0];
  throw new CheckpointError(`${v.getDotPath(issue) ?? "its content"}: ${issue.message}`);
}

function read2(body: unknown): Manifest {
  const { tensors, files, ...rest } = checked(schema2, body);
  return {
    ...rest,
    tensors: tensors.map((tensor, t) => ({ ...tensor, chunks: readChunks(tensor, t, files) })),
    files: files.map((file, f): ManifestFile => ({ ...file, crc32: unpackWords(file.crc32, f) })),
  };
}

function readChunks(
  tensor: Omit<ManifestTensor, "chunks"> & { readonly chunks: readonly number[] },
  t: number,
  files: readonly { readonly name: string }[],
): readonly Chunk[] {
  const { chunks: flat, shape, dtype } = tensor;
  const rank = shape.length;
  const width = 2 + 2 * rank;
  if (flat.length % width !== 0) {
    throw new CheckpointError(`tensors.${t}.chunks: ${flat.length} integers, a multiple of ${width} is due`);
  }
  const { bytes } = STORED_DTYPES[dtype];
  const chunks: Chunk[] = [];
  for (let at = 0; at < flat.length; at += width) {
    const file = files[flat[at]!];
    if (file === undefined) {
      throw new CheckpointError(`tensors.${t}.chunks.${at}: file number ${flat[at]} of ${files.length}`);
    }
    const begin = flat[at + 1]!;
    const offsets = flat.slice(at + 2, at + 2 + rank);
    const sizes = flat.slice(at + 2 + rank, at + width);
    chunks.push({ offsets, sizes, file: file.name, begin, end: begin + volume(sizes) * bytes });
  }
  return chunks;
}

function packWords(words: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(4 * words.length);
  const view = new DataView(bytes.buffer);
  for (const [i, word] of words.entries()) view.setUint32(4 * i, word, true);
  return bytes;
}

function unpackWords(bytes: Uint8Array, f: number): readonly number[] {
  if (bytes.length % 4 !== 0) {
    throw new CheckpointError(`files.${f}.crc32: ${bytes.length} bytes, a multiple of 4 is due`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Array.from({ length: bytes.length / 4 }, (_, i) => view.getUint32(4 * i, true));
}

function isCounts(input: unknown): boolean {
  return Array.isArray(input) && input.every((item) => Number.isSafeInteger(item) && item >= 0);
}

/** Whether decoded MessagePack is an object of plain values: all that it can hold beside them is bytes. */
function isValueRecord(input: unknown): boolean {
  return typeof input === "object" && input !== null && !Array.isArray(input) && isValue(input);
}

function isValue(input: unknown): boolean {
  if (input instanceof Uint8Array) return false;
  if (Array.isArray(input)) return input.every(isValue);
  if (typeof input === "object" && input !== null) return Object.values(input).every(isValue);
  return input !== undefined;
}

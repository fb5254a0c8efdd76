/**
 * The manifest: what a checkpoint holds and where each byte of it lies. It is written last, and by being there makes the
 * checkpoint exist.
 *
 * The file is a small MessagePack map `{ format, version, sha256, body }`; `body` is the manifest itself as MessagePack
 * bytes, and `sha256` their digest in hexadecimal, so that no byte of it can change unseen. What is read is hashed as it stands and
 * never encoded again.
 *
 * Versions: `version` counts up with every change of the body's fields. A reader reads its own version and every older
 * one (a change comes with the function that lifts the version before it); it refuses newer ones, and fields that its
 * version does not know, by name: guessing at what a newer writer meant could load wrong numbers.
 *
 * @module
 */
import * as v from "valibot";
import type { CheckpointInfo, Value } from "../core/contracts/checkpointer.ts";
import { DTYPES, type DType } from "../core/contracts/dtype.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import type { Box } from "../core/contracts/shard.ts";
import { BLOCK_BYTES, type FileDigest, sha256Hex } from "./digest.ts";
import { manifestFaults } from "./manifest-check.ts";
import { decodeMsgpack, encodeMsgpack, type Plain } from "./msgpack.ts";
import { isStoreName, MANIFEST_FILE } from "./stores/names.ts";

/** A box of a tensor, and the bytes of a file that hold it, row-major. */
export interface Chunk extends Box {
  readonly file: string;
  readonly begin: number;
  readonly end: number;
}

/** A global tensor. Its chunks are disjoint, have no zero extent, and cover it. */
export interface ManifestTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly chunks: readonly Chunk[];
}

/** A file with its digests. */
export interface ManifestFile extends FileDigest {
  readonly name: string;
  /** Bytes per CRC. */
  readonly block: number;
}

/** A checkpoint's content. */
export interface Manifest {
  readonly step: number;
  readonly worldSize: number;
  /** Milliseconds since the epoch. */
  readonly createdAt: number;
  readonly tensors: readonly ManifestTensor[];
  readonly files: readonly ManifestFile[];
  readonly values: Readonly<Record<string, Value>>;
  /** Values of each saved rank, in rank order. */
  readonly rankValues: readonly Readonly<Record<string, Value>>[];
}

/** Largest manifest file, in bytes. */
export const MAX_MANIFEST_BYTES: number = 64 * 1024 * 1024;

const FORMAT = "fsdp-checkpoint";
const VERSION = 1;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const extents = v.pipe(v.array(count), v.maxLength(32));
const tensorName = v.pipe(v.string(), v.minLength(1), v.maxLength(4096));
const fileName = v.pipe(v.string(), v.check(isStoreName, "not a valid file name"));
const digest = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));
const values = v.custom<Readonly<Record<string, Value>>>(isValueRecord, "not an object of plain values");

const envelopeSchema = v.strictObject({
  format: v.literal(FORMAT),
  version: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  sha256: digest,
  body: v.instance(Uint8Array),
});

const bodySchema = v.strictObject({
  step: count,
  worldSize: v.pipe(count, v.minValue(1), v.maxValue(1_000_000)),
  createdAt: count,
  tensors: v.pipe(
    v.array(
      v.strictObject({
        name: tensorName,
        dtype: v.picklist(Object.keys(DTYPES) as DType[]),
        shape: extents,
        chunks: v.array(
          v.strictObject({ offsets: extents, sizes: extents, file: fileName, begin: count, end: count }),
        ),
      }),
    ),
    v.maxLength(1_000_000),
  ),
  files: v.array(
    v.strictObject({
      name: fileName,
      length: count,
      sha256: digest,
      block: v.literal(BLOCK_BYTES),
      crc32: v.array(v.pipe(count, v.maxValue(0xffffffff))),
    }),
  ),
  values,
  rankValues: v.array(values),
});

/** Encodes a manifest. Equal manifests give equal bytes. @throws CheckpointError when it is too large or a value has no encoding. */
export function encodeManifest(manifest: Manifest): Uint8Array {
  const body = encodeMsgpack(manifest as unknown as Plain);
  const bytes = encodeMsgpack({ format: FORMAT, version: VERSION, sha256: sha256Hex(body), body });
  if (bytes.length > MAX_MANIFEST_BYTES) {
    throw new CheckpointError(`manifest: it takes ${bytes.length} bytes, allowed are ${MAX_MANIFEST_BYTES}`);
  }
  return bytes;
}

/**
 * Decodes and checks a manifest: its digest, its fields, and that chunks cover their tensors exactly from ranges that
 * their files have.
 *
 * @throws CheckpointError that lists every fault found.
 */
export function decodeManifest(bytes: Uint8Array): Manifest {
  const manifest = decodeBody(bytes);
  const faults = manifestFaults(manifest);
  if (faults.length > 0) throw new CheckpointError(`${MANIFEST_FILE}: ${listFaults(faults)}`);
  return manifest;
}

/** Decodes what one rank contributes to a manifest: its digest and fields are checked, coverage cannot be. */
export function decodeBody(bytes: Uint8Array): Manifest {
  try {
    if (bytes.length > MAX_MANIFEST_BYTES) {
      throw new CheckpointError(`it has ${bytes.length} bytes, allowed are ${MAX_MANIFEST_BYTES}`);
    }
    const envelope = parse(envelopeSchema, decodeMsgpack(bytes));
    if (envelope.version > VERSION) {
      throw new CheckpointError(`it has version ${envelope.version}, versions up to ${VERSION} can be read`);
    }
    if (sha256Hex(envelope.body) !== envelope.sha256) {
      throw new CheckpointError("its content does not match its SHA-256");
    }
    return parse(bodySchema, decodeMsgpack(envelope.body));
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    throw new CheckpointError(`${MANIFEST_FILE}: ${error.message}`, { cause: error });
  }
}

/** What is told of a checkpoint. `manifestBytes` is the length of its manifest file. */
export function describe(name: string, manifest: Manifest, manifestBytes: number): CheckpointInfo {
  const { step, worldSize, createdAt } = manifest;
  const bytes = manifest.files.reduce((sum, file) => sum + file.length, manifestBytes);
  return { name, step, worldSize, bytes, createdAt };
}

/** Faults as one message; of many only the first are spelled out. */
export function listFaults(faults: readonly string[]): string {
  const shown = faults.slice(0, 20).join("; ");
  return faults.length > 20 ? `${shown}; and ${faults.length - 20} more` : shown;
}

function parse<const S extends v.GenericSchema>(schema: S, input: unknown): v.InferOutput<S> {
  const result = v.safeParse(schema, input, { abortEarly: true });
  if (result.success) return result.output;
  const issue = result.issues[0];
  throw new CheckpointError(`${v.getDotPath(issue) ?? "its content"}: ${issue.message}`);
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

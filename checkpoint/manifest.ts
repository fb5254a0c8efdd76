/**
 * The manifest: what a checkpoint holds and where each byte of it lies. It is written last, and by being there makes the
 * checkpoint exist.
 *
 * The file is a small MessagePack map `{ format, version, sha256, body }`; `body` is the manifest itself as MessagePack
 * bytes, and `sha256` their digest in hexadecimal, so that no byte of it can change unseen. What is read is hashed as it stands and
 * never encoded again.
 *
 * Versions: `version` counts up with every change of the body's fields. A reader reads its own version and every older
 * one, for good: each keeps its schema and its function in manifest-body.ts, and a checkpoint of it among the tests'
 * fixtures. It refuses newer ones, and fields that a version does not know, by name: guessing at what a newer writer
 * meant could load wrong numbers.
 *
 * @module
 */
import * as v from "valibot";
import type { CheckpointInfo, Value } from "../core/contracts/checkpointer.ts";
import type { StoredDType } from "../core/contracts/dtype.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import type { Box } from "../core/contracts/shard.ts";
import { type FileDigest, sha256Hex } from "./digest.ts";
import { checked, decodeBodyOf, encodeBody, VERSION } from "./manifest-body.ts";
import { manifestFaults } from "./manifest-check.ts";
import { decodeMsgpack, encodeMsgpack } from "./msgpack.ts";
import { MANIFEST_FILE } from "./stores/names.ts";

/** A box of a tensor, and the bytes of a file that hold it, row-major. */
export interface Chunk extends Box {
  readonly file: string;
  readonly begin: number;
  readonly end: number;
}

/** A global tensor. Its chunks are disjoint, have no zero extent, and cover it. */
export interface ManifestTensor {
  readonly name: string;
  readonly dtype: StoredDType;
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

const envelopeSchema = v.strictObject({
  format: v.literal(FORMAT),
  version: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  sha256: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
  body: v.instance(Uint8Array),
});

/** Encodes a manifest. Equal manifests give equal bytes. @throws CheckpointError when it is too large or a value has no encoding. */
export function encodeManifest(manifest: Manifest): Uint8Array {
  const body = encodeMsgpack(encodeBody(manifest));
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
    const envelope = checked(envelopeSchema, decodeMsgpack(bytes));
    if (envelope.version > VERSION) {
      throw new CheckpointError(`it has version ${envelope.version}, versions up to ${VERSION} can be read`);
    }
    if (sha256Hex(envelope.body) !== envelope.sha256) {
      throw new CheckpointError("its content does not match its SHA-256");
    }
    return decodeBodyOf(envelope.version, decodeMsgpack(envelope.body));
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

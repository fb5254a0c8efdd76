/**
 * Files that did not change since the last checkpoint: found by length and SHA-256, read once more to see that they are
 * still whole, and made part of the new checkpoint without being stored again.
 *
 * @module
 */
import type { CheckpointStore, StoreTransaction } from "../core/contracts/checkpointer.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import type { FileDigest } from "./digest.ts";
import { BLOCK_BYTES } from "./digest.ts";
import { newestCheckpoint } from "./open-manifest.ts";
import { fileProblems } from "./verify.ts";

/** What is needed of a file to know it again. */
export interface EarlierFile {
  readonly name: string;
  readonly length: number;
  readonly sha256: string;
}

/** The last checkpoint's files. */
export interface EarlierFiles {
  readonly store: CheckpointStore;
  readonly checkpoint: string;
  readonly files: readonly EarlierFile[];
}

/** The newest checkpoint's files; none when there is no checkpoint, or none that can be read. */
export async function earlierFiles(store: CheckpointStore): Promise<EarlierFiles> {
  const newest = await newestCheckpoint(store);
  if (newest === undefined) return { store, checkpoint: "", files: [] };
  const files = newest.manifest.files.map(({ name, length, sha256 }) => ({ name, length, sha256 }));
  return { store, checkpoint: newest.info.name, files };
}

/** Makes an earlier file with this digest the transaction's `name`. Returns whether it did: then nothing is to be written. */
export async function shareFile(
  transaction: StoreTransaction,
  name: string,
  digest: FileDigest,
  earlier: EarlierFiles,
): Promise<boolean> {
  const found = earlier.files.find((file) => file.sha256 === digest.sha256 && file.length === digest.length);
  if (found === undefined || transaction.link === undefined) return false;
  try {
    // A file that has rotted since must not spoil this checkpoint too.
    const known = { ...digest, name: found.name, block: BLOCK_BYTES };
    const checked = transaction.linkVerifies === true;
    const problems = checked ? [] : await fileProblems(earlier.store, earlier.checkpoint, known);
    if (problems.length > 0) return false;
    await transaction.link(name, { name: earlier.checkpoint, file: found.name });
    return true;
  } catch (error) {
    // It was deleted meanwhile, or lies where links cannot reach: then it is written.
    if (error instanceof CheckpointError) return false;
    throw error;
  }
}

/**
 * Verification: every byte of a checkpoint against its digests, without loading it anywhere. Reports all damage, by
 * block, rather than stopping at the first.
 *
 * @module
 */
import type { CheckpointFault, CheckpointStore } from "../core/contracts/checkpointer.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import { damagedBlocks } from "./block-reader.ts";
import { hashFile } from "./digest.ts";
import type { Manifest, ManifestFile } from "./manifest.ts";
import { fileChunks } from "./open-files.ts";
import { openManifest } from "./open-manifest.ts";
import { MANIFEST_FILE } from "./stores/names.ts";

/** Blocks read at once. */
const BATCH_BLOCKS = 8;

/** Everything that is damaged in checkpoint `name`; empty when it is whole. @throws CheckpointError when there is no such checkpoint. */
export async function verifyCheckpoint(
  store: CheckpointStore,
  name: string,
): Promise<readonly CheckpointFault[]> {
  const present = await store.files(name);
  let manifest: Manifest;
  try {
    manifest = (await openManifest(store, name)).manifest;
  } catch (error) {
    return [{ file: MANIFEST_FILE, problem: problemOf(error) }];
  }
  const faults: CheckpointFault[] = [];
  const listed = new Set([MANIFEST_FILE, ...manifest.files.map((file) => file.name)]);
  for (const file of present) {
    if (!listed.has(file)) faults.push({ file, problem: "not listed in the manifest" });
  }
  for (const file of manifest.files) {
    try {
      const problems = present.includes(file.name) ? await fileProblems(store, name, file) : ["missing"];
      faults.push(...problems.map((problem) => ({ file: file.name, problem })));
    } catch (error) {
      faults.push({ file: file.name, problem: problemOf(error) });
    }
  }
  return faults;
}

/** What is wrong with one file of a checkpoint, against what is known of it; empty when nothing is. */
export async function fileProblems(
  store: CheckpointStore,
  name: string,
  file: ManifestFile,
): Promise<readonly string[]> {
  const length = await store.size(name, file.name);
  const problems = length === file.length ? [] : [`has ${length} bytes, due are ${file.length}`];
  const hasher = hashFile();
  const readable = Math.min(length, file.length);
  for await (const { begin, bytes } of fileChunks(
    store,
    name,
    file.name,
    readable,
    BATCH_BLOCKS * file.block,
  )) {
    hasher.update(bytes);
    for (const block of damagedBlocks(file, bytes, begin))
      problems.push(`block ${block} does not match its checksum`);
  }
  if (problems.length === 0 && hasher.finish().sha256 !== file.sha256)
    problems.push("does not match its SHA-256");
  return problems;
}

function problemOf(error: unknown): string {
  if (error instanceof CheckpointError) return error.message;
  throw error;
}

/**
 * Commit: what a save holds becomes a checkpoint, once it is proven whole, and in one step that happens or does not.
 *
 * @module
 */
import { link, lstat, mkdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { encodeManifest } from "../manifest.ts";
import { mergeParts } from "../merge-parts.ts";
import { partFile } from "../rank-file.ts";
import { isMissing, isTaken } from "../stores/directory-errors.ts";
import { syncDirectory } from "../stores/directory-files.ts";
import { MANIFEST_FILE } from "../stores/names.ts";
import { Problem } from "./problem.ts";
import { proveFiles, unproven } from "./proof.ts";
import { makeRoot, type Run } from "./run.ts";
import type { Save, SaveFile } from "./save.ts";

/** What a commit needs to know. */
export interface CommitOptions {
  readonly now: number;
  /** Whether the manifest must decode, cover its tensors and match the files. */
  readonly prove: boolean;
}

/**
 * Commits a save; call in its queue. Without a manifest among its files, the rank manifests are merged to one.
 *
 * @returns SHA-256 of the manifest.
 * @throws Problem when the save is not proven or the name is taken; the save stays open.
 */
export async function commitSave(run: Run, save: Save, options: CommitOptions): Promise<string> {
  save.checkOpen();
  if (save.uploads.size > 0) {
    const waiting = [...save.uploads.values()].map(({ spec }) => spec.file ?? spec.id);
    throw unproven(waiting.map((file) => `file ${file}: its upload is not complete`));
  }
  const files = await wholeFiles(run, save, options.now);
  const { sha256 } = files.get(MANIFEST_FILE)!;
  if (options.prove) await proveFiles(run, save.begun, files);
  const folder = join(save.folder, "commit");
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder);
  for (const [file, stored] of files) {
    await link(run.blobs.pathOf(stored.sha256), join(folder, file)).catch((error: unknown) => {
      throw isMissing(error) ? unproven([`file ${file}: its bytes are gone`]) : error;
    });
  }
  await syncDirectory(folder);
  const { ino } = await lstat(folder, { bigint: true });
  await save.record({ type: "committing", inode: String(ino), sha256 });
  await makeRoot(run);
  // Of several committers one wins: a folder with files in it is never replaced by a rename.
  await rename(folder, join(run.root, save.begun.name)).catch((error: unknown) => {
    throw isTaken(error)
      ? new Problem("already-committed", `there is a checkpoint ${save.begun.name} in run ${run.name}`)
      : error;
  });
  await syncDirectory(run.root);
  await save.record({ type: "committed", sha256, at: options.now });
  await save.clear();
  return sha256;
}

/** Ranks whose manifest has not come, of a save that knows how many there are. */
export function missingRanks(save: Save): readonly number[] {
  const ranks = Array.from({ length: save.begun.worldSize ?? 0 }, (_, rank) => rank);
  return ranks.filter((rank) => !save.files.has(partFile(rank)));
}

/** The files of the checkpoint to be: those of the save, or with a manifest made of the ranks' in the place of theirs. */
async function wholeFiles(run: Run, save: Save, now: number): Promise<ReadonlyMap<string, SaveFile>> {
  const files = new Map(save.files);
  if (files.has(MANIFEST_FILE)) return files;
  const { worldSize, step } = save.begun;
  if (worldSize === undefined || step === undefined) {
    throw unproven([
      `file ${MANIFEST_FILE}: missing; the service makes it of a save with step and worldSize`,
    ]);
  }
  const missing = missingRanks(save);
  if (missing.length > 0) throw unproven(missing.map((rank) => `rank ${rank}: its manifest is missing`));
  const read = async (file: string): Promise<Uint8Array> => {
    const { sha256 } = files.get(file)!;
    return new Uint8Array(await readFile(run.blobs.pathOf(sha256)));
  };
  try {
    const bytes = encodeManifest(await mergeParts({ read }, step, worldSize, now));
    const { sha256, length } = await run.blobs.put(bytes);
    for (let rank = 0; rank < worldSize; rank++) files.delete(partFile(rank));
    return files.set(MANIFEST_FILE, { sha256, length });
  } catch (error) {
    if (error instanceof CheckpointError) throw unproven([error.message]);
    throw error;
  }
}

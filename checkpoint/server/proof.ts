/**
 * The proof that a save is whole: its manifest is sound and covers every tensor, every file that it lists is there with
 * the length, the digest and the block checksums it gives, and no file is there that it does not list.
 *
 * @module
 */
import { readFile } from "node:fs/promises";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { decodeBody, MAX_MANIFEST_BYTES, type Manifest } from "../manifest.ts";
import { manifestFaults } from "../manifest-check.ts";
import { MANIFEST_FILE } from "../stores/names.ts";
import type { BeginEntry } from "./journal.ts";
import { MOST_FAULTS, Problem } from "./problem.ts";
import type { Run } from "./run.ts";
import type { SaveFile } from "./save.ts";

/** A refused commit, with everything that is wrong. */
export function unproven(faults: readonly string[]): Problem {
  return new Problem("unproven", `${faults.length} faults: ${faults.slice(0, 3).join("; ")}`, {
    fields: { faults: faults.slice(0, MOST_FAULTS) },
  });
}

/** Proves files among which a manifest is. @throws Problem that lists every fault. */
export async function proveFiles(
  run: Run,
  begun: BeginEntry,
  files: ReadonlyMap<string, SaveFile>,
): Promise<void> {
  const { sha256, length } = files.get(MANIFEST_FILE)!;
  if (length > MAX_MANIFEST_BYTES) {
    throw unproven([`file ${MANIFEST_FILE}: has ${length} bytes, allowed are ${MAX_MANIFEST_BYTES}`]);
  }
  let manifest: Manifest;
  try {
    manifest = decodeBody(new Uint8Array(await readFile(run.blobs.pathOf(sha256))));
  } catch (error) {
    if (error instanceof CheckpointError) throw unproven([error.message]);
    throw error;
  }
  const faults = [...manifestFaults(manifest), ...agreementFaults(manifest, begun, files)];
  for (const listed of manifest.files) {
    const problem = await fileProblem(run, files.get(listed.name), listed);
    if (problem !== undefined) faults.push(`file ${listed.name}: ${problem}`);
  }
  if (faults.length > 0) throw unproven(faults);
}

function agreementFaults(
  manifest: Manifest,
  { step, worldSize }: BeginEntry,
  files: ReadonlyMap<string, SaveFile>,
): readonly string[] {
  const faults: string[] = [];
  if (step !== undefined && step !== manifest.step)
    faults.push(`step: the manifest says ${manifest.step}, the save is of ${step}`);
  if (worldSize !== undefined && worldSize !== manifest.worldSize)
    faults.push(`ranks: the manifest is of ${manifest.worldSize}, the save of ${worldSize}`);
  const listed = new Set([MANIFEST_FILE, ...manifest.files.map(({ name }) => name)]);
  for (const file of files.keys())
    if (!listed.has(file)) faults.push(`file ${file}: not listed in the manifest`);
  return faults;
}

async function fileProblem(
  run: Run,
  held: SaveFile | undefined,
  listed: Manifest["files"][number],
): Promise<string | undefined> {
  if (held === undefined) return "missing";
  if (held.length !== listed.length) return `has ${held.length} bytes, listed are ${listed.length}`;
  if (held.sha256 !== listed.sha256) return `has SHA-256 ${held.sha256}, listed is ${listed.sha256}`;
  const digest = await run.blobs.find(held.sha256);
  if (digest === undefined) return "its bytes are gone";
  const wrong = listed.crc32.findIndex((crc, block) => crc !== digest.crc32[block]);
  return wrong < 0 ? undefined : `block ${wrong} does not match its checksum`;
}

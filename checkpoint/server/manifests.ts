/**
 * Manifests of committed checkpoints, the last few kept decoded: many requests ask for parts of one checkpoint.
 *
 * @module
 */
import { lstat } from "node:fs/promises";
import { join } from "node:path";
import type { CheckpointInfo } from "../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { sha256Hex } from "../digest.ts";
import { decodeManifest, describe, MAX_MANIFEST_BYTES, type Manifest } from "../manifest.ts";
import { MANIFEST_FILE } from "../stores/names.ts";
import { isExportable } from "./export.ts";
import { Problem } from "./problem.ts";
import type { Run } from "./run.ts";

/** What is known of a committed checkpoint without its tensors. */
export interface CheckpointSummary {
  /** `undefined` when the manifest cannot be read. */
  readonly info: CheckpointInfo | undefined;
  /** SHA-256 of the manifest file. */
  readonly sha256: string;
  /** Whether it has a model to export. */
  readonly exportable: boolean;
}

/** Access to manifests. */
export interface Manifests {
  /** @throws Problem when there is no such checkpoint. */
  summary(run: Run, name: string): Promise<CheckpointSummary>;
  /** @throws Problem when there is no such checkpoint, or its manifest is damaged. */
  open(run: Run, name: string): Promise<{ readonly manifest: Manifest; readonly sha256: string }>;
}

const KEPT_MANIFESTS = 4;
const KEPT_SUMMARIES = 10_000;

/** Nothing read yet. */
export function createManifests(): Manifests {
  const manifests = new Map<string, { readonly manifest: Manifest; readonly sha256: string }>();
  const summaries = new Map<string, CheckpointSummary>();

  const load = async (
    run: Run,
    name: string,
    key: string,
  ): Promise<{ readonly summary: CheckpointSummary; readonly manifest: Manifest | undefined }> => {
    const length = await run.store.size(name, MANIFEST_FILE);
    const bytes = await run.store.read(name, MANIFEST_FILE, 0, Math.min(length, MAX_MANIFEST_BYTES + 1));
    const sha256 = sha256Hex(bytes);
    let summary: CheckpointSummary = { info: undefined, sha256, exportable: false };
    let manifest: Manifest | undefined;
    try {
      manifest = decodeManifest(bytes);
      summary = { info: describe(name, manifest, length), sha256, exportable: isExportable(manifest) };
      keep(manifests, key, { manifest, sha256 }, KEPT_MANIFESTS);
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error;
    }
    keep(summaries, key, summary, KEPT_SUMMARIES);
    return { summary, manifest };
  };

  return {
    async summary(run, name): Promise<CheckpointSummary> {
      const key = await keyOf(run, name);
      return summaries.get(key) ?? (await load(run, name, key)).summary;
    },
    async open(run, name): Promise<{ readonly manifest: Manifest; readonly sha256: string }> {
      const key = await keyOf(run, name);
      const known = manifests.get(key);
      if (known !== undefined) {
        keep(manifests, key, known, KEPT_MANIFESTS);
        return known;
      }
      const { summary, manifest } = await load(run, name, key);
      if (manifest === undefined) {
        throw new Problem("unexportable", `the manifest of checkpoint ${name} cannot be read`);
      }
      return { manifest, sha256: summary.sha256 };
    },
  };
}

/** Names a checkpoint's manifest for as long as it is this one: a deleted name may come back with another. */
async function keyOf(run: Run, name: string): Promise<string> {
  const stat = await lstat(join(run.root, name, MANIFEST_FILE), { bigint: true }).catch(() => undefined);
  if (stat?.isFile() !== true) throw new Problem("not-found", `run ${run.name} has no checkpoint ${name}`);
  const folder = await lstat(join(run.root, name), { bigint: true });
  return [run.name, name, folder.ino, folder.ctimeNs, stat.ino, stat.mtimeNs, stat.size].join("/");
}

function keep<T>(cache: Map<string, T>, key: string, value: T, most: number): void {
  cache.delete(key);
  cache.set(key, value);
  const [oldest] = cache.keys();
  if (cache.size > most && oldest !== undefined) cache.delete(oldest);
}

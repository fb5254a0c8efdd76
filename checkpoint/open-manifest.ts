/**
 * Manifests in a store: one by name, the newest, all of them.
 *
 * @module
 */
import type { CheckpointInfo, CheckpointStore } from "../core/contracts/checkpointer.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import { sha256Hex } from "./digest.ts";
import { decodeManifest, describe, MAX_MANIFEST_BYTES, type Manifest } from "./manifest.ts";
import { MANIFEST_FILE } from "./stores/names.ts";

/** A manifest as it was read. */
export interface OpenedManifest {
  readonly manifest: Manifest;
  readonly info: CheckpointInfo;
  /** Of the file's bytes. */
  readonly sha256: string;
}

/** Told of a committed checkpoint whose manifest cannot be read. */
export type DamageReport = (name: string, problem: string) => void;

/** Reads and checks the manifest of a committed checkpoint. @throws CheckpointError. */
export async function openManifest(store: CheckpointStore, name: string): Promise<OpenedManifest> {
  const length = await store.size(name, MANIFEST_FILE);
  if (length > MAX_MANIFEST_BYTES) {
    throw new CheckpointError(
      `checkpoint ${name}: ${MANIFEST_FILE} has ${length} bytes, allowed are ${MAX_MANIFEST_BYTES}`,
    );
  }
  const bytes = await store.read(name, MANIFEST_FILE, 0, length);
  try {
    const manifest = decodeManifest(bytes);
    return { manifest, info: describe(name, manifest, length), sha256: sha256Hex(bytes) };
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    throw new CheckpointError(`checkpoint ${name}: ${error.message}`, { cause: error });
  }
}

/** Everything committed whose manifest can be read, oldest first. */
export async function readableCheckpoints(
  store: CheckpointStore,
  onDamaged?: DamageReport,
): Promise<readonly CheckpointInfo[]> {
  const infos: CheckpointInfo[] = [];
  for (const name of await store.list()) {
    const opened = await openOrReport(store, name, onDamaged);
    if (opened !== undefined) infos.push(opened.info);
  }
  return infos.sort((a, b) => a.step - b.step || a.createdAt - b.createdAt);
}

/** The checkpoint of the highest step whose manifest can be read; `undefined` when there is none. */
export async function newestCheckpoint(
  store: CheckpointStore,
  onDamaged?: DamageReport,
): Promise<OpenedManifest | undefined> {
  for (const { name } of (await namedSteps(store)).toReversed()) {
    const opened = await openOrReport(store, name, onDamaged);
    if (opened !== undefined) return opened;
  }
  return undefined;
}

/** Committed checkpoints whose name says their step, ascending; nothing is read of them. */
export async function namedSteps(
  store: CheckpointStore,
): Promise<readonly { readonly name: string; readonly step: number }[]> {
  const steps = (await store.list()).flatMap((name) => {
    const digits = /^step-([0-9]{8,16})$/.exec(name)?.[1];
    return digits === undefined ? [] : [{ name, step: Number(digits) }];
  });
  return steps.sort((a, b) => a.step - b.step);
}

async function openOrReport(
  store: CheckpointStore,
  name: string,
  onDamaged: DamageReport | undefined,
): Promise<OpenedManifest | undefined> {
  try {
    return await openManifest(store, name);
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    onDamaged?.(name, error.message);
    return undefined;
  }
}

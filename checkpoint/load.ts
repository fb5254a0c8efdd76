/**
 * Loading: every rank reads the manifest, proves that all it wants is there, and only then reads and fills its pieces,
 * each after all of its bytes were verified.
 *
 * @module
 */
import type {
  CheckpointInfo,
  CheckpointStore,
  LoadedCheckpoint,
  ShardedState,
} from "../core/contracts/checkpointer.ts";
import type { Collective } from "../core/contracts/collective.ts";
import { hostArray } from "../core/contracts/dtype.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import { onEveryRank, onFirstRank } from "./agree.ts";
import { type BlockReader, blockReader } from "./block-reader.ts";
import { volume } from "./boxes.ts";
import { sha256Hex } from "./digest.ts";
import { decodeManifest, describe, MAX_MANIFEST_BYTES, type Manifest } from "./manifest.ts";
import { type PiecePlan, planLoad } from "./plan.ts";
import { MANIFEST_FILE } from "./stores/names.ts";
import { batches, placeBatch } from "./transfer.ts";

/** A manifest as it was read. */
export interface OpenedManifest {
  readonly manifest: Manifest;
  readonly info: CheckpointInfo;
  /** Of the file's bytes. */
  readonly sha256: string;
}

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

/** The newest committed checkpoint: the highest step by name. @throws CheckpointError when there is none. */
async function latestName(store: CheckpointStore): Promise<string> {
  let latest: { name: string; step: number } | undefined;
  for (const name of await store.list()) {
    const digits = /^step-([0-9]{8,16})$/.exec(name)?.[1];
    if (digits !== undefined && Number(digits) >= (latest?.step ?? 0))
      latest = { name, step: Number(digits) };
  }
  if (latest === undefined) throw new CheckpointError(`no checkpoint in ${store.location}`);
  return latest.name;
}

/**
 * Fills the pieces of a state from a checkpoint. Collective.
 *
 * @param name a checkpoint's, or `"latest"`
 * @throws CheckpointError on every rank, with the same message. When it says that something is missing or differs, no
 *   piece was written on any rank; when bytes are damaged, the pieces read before were.
 */
export async function loadCheckpoint(
  store: CheckpointStore,
  state: Pick<ShardedState, "tensors">,
  name: string,
  collective: Collective,
): Promise<LoadedCheckpoint> {
  const what = `load of ${name}`;
  const chosen = await onFirstRank(collective, what, async () => {
    const found = name === "latest" ? await latestName(store) : name;
    return JSON.stringify([found, (await openManifest(store, found)).sha256]);
  });
  const [found, digest] = JSON.parse(chosen) as [string, string];
  const { opened, plans } = await onEveryRank(collective, what, async () => {
    const opened = await openManifest(store, found);
    if (opened.sha256 !== digest)
      throw new CheckpointError(`checkpoint ${found}: its manifest is not the one of rank 0`);
    return { opened, plans: planLoad(opened.manifest.tensors, state.tensors) };
  });
  await onEveryRank(collective, what, async () => {
    const reader = blockReader(store, found, opened.manifest.files);
    for (const plan of plans) await fillPiece(reader, state, plan);
  });
  const { values, rankValues } = opened.manifest;
  return { info: opened.info, values, rankValues };
}

async function fillPiece(
  reader: BlockReader,
  state: Pick<ShardedState, "tensors">,
  plan: PiecePlan,
): Promise<void> {
  const tensor = state.tensors[plan.tensor]!;
  const piece = tensor.pieces[plan.piece]!;
  const bytes = new Uint8Array(plan.bytes);
  for (const transfer of plan.transfers) {
    for (const batch of batches(transfer)) {
      placeBatch(batch, await reader.read(transfer.file, batch.begin, batch.end), bytes);
    }
  }
  piece.write(hostArray(tensor.dtype, bytes.buffer, 0, volume(piece.sizes)));
}

/**
 * Saving: ranks agree on the state, each writes its own pieces, the first one merges and commits. Every step ends with
 * an exchange of outcomes, so a rank that fails makes all of them throw the same error, and none waits for it.
 *
 * @module
 */
import type {
  CheckpointInfo,
  CheckpointStore,
  ShardedState,
  StoreTransaction,
} from "../core/contracts/checkpointer.ts";
import type { Collective } from "../core/contracts/collective.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import { allEnded, onEveryRank, onFirstRank } from "./agree.ts";
import { hashFile } from "./digest.ts";
import type { StreamHasher } from "./hash-thread.ts";
import { describe, encodeManifest } from "./manifest.ts";
import { mergeParts, removeParts } from "./merge-parts.ts";
import { writeFile, writeRank } from "./rank-file.ts";
import { type OwnPiece, piecesToWrite } from "./replicas.ts";
import { type EarlierFile, earlierFiles } from "./shared-files.ts";
import { checkState } from "./state-check.ts";
import { MANIFEST_FILE } from "./stores/names.ts";

/** A state that all ranks agree on, and what this rank is to write of it. */
export interface PreparedSave {
  readonly state: ShardedState;
  readonly step: number;
  readonly name: string;
  readonly pieces: readonly OwnPiece[];
  /** Starts the digest of a file. */
  readonly hash: () => StreamHasher;
}

/** Where and how a prepared save is written. */
export interface SavePlace {
  readonly store: CheckpointStore;
  /** What the manifest is dated, in milliseconds since the epoch. */
  readonly createdAt: number;
  /** Runs on the first rank after the commit; must not throw. */
  afterCommit(): Promise<void>;
}

/** Name of the checkpoint of a step. @throws CheckpointError when `step` is not an integer from 0 to 2^53 - 1. */
export function checkpointName(step: number): string {
  if (!Number.isSafeInteger(step) || step < 0) {
    throw new CheckpointError(`step: ${step}, allowed are integers from 0 to 2^53 - 1`);
  }
  return `step-${String(step).padStart(8, "0")}`;
}

/**
 * Checks a state and settles who writes what. Collective.
 *
 * @param check what else must hold on every rank
 * @throws CheckpointError on every rank, with the same message.
 */
export async function prepareSave(
  state: ShardedState,
  step: number,
  collective: Collective,
  check: () => Promise<void>,
): Promise<PreparedSave> {
  const name = await onEveryRank(collective, `save of step ${step}`, async () => {
    await check();
    checkState(state);
    return checkpointName(step);
  });
  return { state, step, name, pieces: await piecesToWrite(collective, state.tensors), hash: hashFile };
}

/**
 * Writes and commits. Collective.
 *
 * @throws CheckpointError on every rank, with the same message; then nothing was committed.
 */
export async function writeSave(
  { state, step, name, pieces, hash }: PreparedSave,
  { store, createdAt, afterCommit }: SavePlace,
  collective: Collective,
): Promise<CheckpointInfo> {
  const { rank, size: worldSize } = collective;
  const what = `save of step ${step}`;
  const begun: StoreTransaction[] = [];
  try {
    const opened = await onFirstRank(collective, what, async () => {
      const transaction = await store.begin(name);
      begun.push(transaction);
      const { checkpoint, files } = await earlierFiles(store);
      return JSON.stringify({ name, id: transaction.id, checkpoint, files } satisfies Opened);
    });
    await onEveryRank(collective, what, async () => {
      const { name: theirName, id, checkpoint, files } = JSON.parse(opened) as Opened;
      if (theirName !== name) throw new CheckpointError(`it saves ${name} where rank 0 saves ${theirName}`);
      const transaction = begun[0] ?? (await store.join(name, id));
      const earlier = { store, checkpoint, files };
      await writeRank(transaction, { step, rank, worldSize, state, pieces, earlier, hash });
    });
    const info = await onFirstRank(collective, what, async () => {
      const info = await commit(begun[0]!, name, step, worldSize, createdAt);
      await afterCommit();
      return JSON.stringify(info);
    });
    return JSON.parse(info) as CheckpointInfo;
  } catch (error) {
    // The error that led here is the one to tell. After a commit this does nothing.
    await begun[0]?.abort().catch(() => undefined);
    throw error;
  }
}

/** What the first rank tells the others of a begun save. */
interface Opened {
  readonly name: string;
  readonly id: string;
  /** The last checkpoint, whose files may be shared. */
  readonly checkpoint: string;
  readonly files: readonly EarlierFile[];
}

async function commit(
  transaction: StoreTransaction,
  name: string,
  step: number,
  worldSize: number,
  createdAt: number,
): Promise<CheckpointInfo> {
  const manifest = await mergeParts(transaction, step, worldSize, createdAt);
  const bytes = encodeManifest(manifest);
  await allEnded([
    removeParts(transaction, worldSize),
    writeFile(transaction, MANIFEST_FILE, bytes.length, async (writer) => writer.write(bytes)),
  ]);
  await transaction.commit();
  return describe(name, manifest, bytes.length);
}

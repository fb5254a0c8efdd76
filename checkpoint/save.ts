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
import { onEveryRank, onFirstRank } from "./agree.ts";
import { describe, encodeManifest } from "./manifest.ts";
import { mergeParts } from "./merge.ts";
import { partFile, writeFile, writeRank } from "./rank-file.ts";
import { piecesToWrite } from "./replicas.ts";
import { checkState } from "./state-check.ts";
import { MANIFEST_FILE } from "./stores/names.ts";

/** Name of the checkpoint of a step. @throws CheckpointError when `step` is not an integer from 0 to 2^53 - 1. */
function checkpointName(step: number): string {
  if (!Number.isSafeInteger(step) || step < 0) {
    throw new CheckpointError(`step: ${step}, allowed are integers from 0 to 2^53 - 1`);
  }
  return `step-${String(step).padStart(8, "0")}`;
}

/**
 * Saves a state. Collective.
 *
 * @param createdAt what the manifest is dated, in milliseconds since the epoch
 * @throws CheckpointError on every rank, with the same message; then nothing was committed.
 */
export async function saveCheckpoint(
  store: CheckpointStore,
  state: ShardedState,
  step: number,
  createdAt: number,
  collective: Collective,
): Promise<CheckpointInfo> {
  const { rank, size: worldSize } = collective;
  const what = `save of step ${step}`;
  const name = await onEveryRank(collective, what, async () => {
    checkState(state);
    return checkpointName(step);
  });
  const pieces = await piecesToWrite(collective, state.tensors);
  const begun: StoreTransaction[] = [];
  try {
    const opened = await onFirstRank(collective, what, async () => {
      const transaction = await store.begin(name);
      begun.push(transaction);
      return JSON.stringify([name, transaction.id]);
    });
    await onEveryRank(collective, what, async () => {
      const [theirName, id] = JSON.parse(opened) as [string, string];
      if (theirName !== name) throw new CheckpointError(`it saves ${name} where rank 0 saves ${theirName}`);
      await writeRank(begun[0] ?? (await store.join(name, id)), { step, rank, worldSize, state, pieces });
    });
    const info = await onFirstRank(collective, what, async () => {
      return JSON.stringify(await commit(begun[0]!, name, step, worldSize, createdAt));
    });
    return JSON.parse(info) as CheckpointInfo;
  } catch (error) {
    // The error that led here is the one to tell. After a commit this does nothing.
    await begun[0]?.abort().catch(() => undefined);
    throw error;
  }
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
  for (let rank = 0; rank < worldSize; rank++) await transaction.remove(partFile(rank));
  await writeFile(transaction, MANIFEST_FILE, async (writer) => writer.write(bytes));
  await transaction.commit();
  return describe(name, manifest, bytes.length);
}

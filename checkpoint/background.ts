/**
 * Saves in the background, as one rank has them: the state is copied to host memory that is used again for the next one,
 * and written from there over a group of the rank's own, while training goes on.
 *
 * @module
 */
import type {
  AsyncSaveOptions,
  CheckpointInfo,
  PendingSave,
  ShardedState,
} from "../core/contracts/checkpointer.ts";
import type { Collective } from "../core/contracts/collective.ts";
import {
  hostArray,
  newHostArray,
  STORED_DTYPES,
  type StoredArray,
  type StoredDType,
} from "../core/contracts/dtype.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import { allEnded, onEveryRank } from "./agree.ts";
import { volume } from "./boxes.ts";
import { type HashThread, startHashThread } from "./hash-thread.ts";
import { decodeMsgpack, encodeMsgpack, type Plain } from "./msgpack.ts";
import { fetchPiece } from "./piece-stream.ts";
import { type OwnPiece, pieceKey } from "./replicas.ts";
import { type PreparedSave, prepareSave, type SavePlace, writeSave } from "./save.ts";

/** Fetches from a device under way at once. */
const FETCHES = 8;

/** Saves of one rank in the background. */
export interface BackgroundSaves {
  /** Starts one. Collective. */
  start(state: ShardedState, step: number, place: SavePlace, options: AsyncSaveOptions): Promise<PendingSave>;
  /** Resolves when none is under way. @throws CheckpointError when the last one failed and nobody was told, which this does. */
  settle(): Promise<void>;
  /** Waits, and frees the host memory and the group. */
  close(): Promise<void>;
}

interface Started extends PendingSave {
  readonly ended: Promise<void>;
  told: boolean;
}

/** Background saves over the ranks of `collective`. */
export function backgroundSaves(collective: Collective): BackgroundSaves {
  const staging = new Map<string, StoredArray>();
  let group: Collective | undefined;
  let hashing: HashThread | undefined;
  let last: Started | undefined;

  const settle = async (): Promise<void> => {
    await last?.ended;
    const outcome = last?.outcome;
    if (last === undefined || last.told || outcome === undefined || !("error" in outcome)) return;
    last.told = true;
    throw new CheckpointError(`an earlier save in the background failed: ${outcome.error.message}`, {
      cause: outcome.error,
    });
  };

  return {
    async start(state, step, place, { whenBusy = "wait" }): Promise<PendingSave> {
      const prepared = await prepareSave(state, step, collective, async () => {
        if (whenBusy === "refuse" && last !== undefined && last.outcome === undefined) {
          throw new CheckpointError(`the save of step ${last.step} is still being written`);
        }
        await settle();
      });
      const staged = await onEveryRank(collective, `save of step ${step}`, () => stage(prepared, staging));
      group ??= await collective.split(0, collective.rank);
      hashing ??= startHashThread();
      const { hashFile } = hashing;
      last = started(step, writeSave({ ...staged, hash: hashFile }, place, group));
      return last;
    },
    settle,
    async close(): Promise<void> {
      await last?.ended;
      staging.clear();
      await hashing?.close();
      hashing = undefined;
      await group?.close();
      group = undefined;
    },
  };
}

function started(step: number, writing: Promise<CheckpointInfo>): Started {
  let outcome: PendingSave["outcome"];
  const save: Started = {
    step,
    told: false,
    get outcome() {
      return outcome;
    },
    ended: writing.then(
      (info) => {
        outcome = { info };
      },
      (error: Error) => {
        outcome = { error };
      },
    ),
    async wait(): Promise<CheckpointInfo> {
      save.told = true;
      return await writing;
    },
  };
  return save;
}

/** A save whose pieces and values no longer change, whatever training does. */
async function stage(prepared: PreparedSave, staging: Map<string, StoredArray>): Promise<PreparedSave> {
  const before = new Map(staging);
  staging.clear();
  const pieces: OwnPiece[] = [];
  let fetches: Promise<void>[] = [];
  for (const own of prepared.pieces) {
    const { tensor, piece } = own;
    const key = pieceKey(tensor.name, piece);
    const fresh = newHostArray(tensor.dtype, 0);
    let array = before.get(key);
    // A page that was touched before costs nothing: memory is kept for the same piece of the next save.
    if (array?.constructor !== fresh.constructor) array = sharedArray(tensor.dtype, volume(piece.sizes));
    const copy = array;
    staging.set(key, copy);
    fetches.push(fetchPiece(own, copy));
    pieces.push({ tensor, piece: { ...piece, read: async () => copy, view: () => copy } });
    if (fetches.length === FETCHES) {
      await allEnded(fetches);
      fetches = [];
    }
  }
  await allEnded(fetches);
  const { tensors, values, rankValues } = prepared.state;
  const state = { tensors, values: copyOf(values), rankValues: copyOf(rankValues) };
  return { ...prepared, state, pieces };
}

/** Memory that the hashing thread sees. */
function sharedArray(dtype: StoredDType, length: number): StoredArray {
  return hostArray(dtype, new SharedArrayBuffer(length * STORED_DTYPES[dtype].bytes), 0, length);
}

function copyOf(values: ShardedState["values"]): ShardedState["values"] {
  return decodeMsgpack(encodeMsgpack(values as Plain)) as ShardedState["values"];
}

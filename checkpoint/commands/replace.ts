/**
 * A checkpoint in the place of others: it is saved beside them under a name of its own, and they go when it is whole. At
 * every moment one of them is there, and what failed in between says where.
 *
 * @module
 */
import { randomUUID } from "node:crypto";
import type { CheckpointStore, StoreTransaction } from "../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { writeFile } from "../rank-file.ts";
import { MANIFEST_FILE } from "../stores/names.ts";

/** A save that takes the place of others. */
export interface Replacement {
  /** The store to save to. */
  readonly store: CheckpointStore;
  /** Removes the others, and gives what was saved the name it was to have. @throws CheckpointError that says where it is. */
  complete(): Promise<void>;
}

/** Bytes of one copy, where a store cannot link. */
const COPY_BYTES = 8 * 1024 * 1024;

/** Lets `name` of a store be saved while `taken`, which may be that name too, are still there. */
export function replacement(store: CheckpointStore, name: string, taken: readonly string[]): Replacement {
  const beside = `${name}-${randomUUID().slice(0, 8)}`;
  const placed = (given: string): string => (given === name ? beside : given);
  const { open } = store;
  return {
    store: {
      location: store.location,
      begin: (given) => store.begin(placed(given)),
      join: (given, id) => store.join(placed(given), id),
      list: () => store.list(),
      size: (given, file) => store.size(given, file),
      files: (given) => store.files(given),
      read: (given, file, begin, end) => store.read(given, file, begin, end),
      ...(open === undefined ? {} : { open: (given, file) => open.call(store, given, file) }),
      delete: (given) => store.delete(given),
    },
    async complete(): Promise<void> {
      try {
        for (const old of taken) await store.delete(old);
        await takeOver(store, beside, name);
        await store.delete(beside);
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        throw new CheckpointError(`${name} of ${store.location} is whole as ${beside}: ${reason}`, {
          cause: error,
        });
      }
    },
  };
}

/** Commits the files of one checkpoint under another name. */
async function takeOver(store: CheckpointStore, from: string, name: string): Promise<void> {
  const transaction = await store.begin(name);
  try {
    for (const file of await store.files(from)) {
      // A service links what a manifest lists, which is not itself.
      const links = transaction.link !== undefined && file !== MANIFEST_FILE;
      if (links) await transaction.link!(file, { name: from, file });
      else await copy(store, from, file, transaction);
    }
    await transaction.commit();
  } catch (error) {
    await transaction.abort().catch(() => undefined);
    throw error;
  }
}

async function copy(
  store: CheckpointStore,
  from: string,
  file: string,
  transaction: StoreTransaction,
): Promise<void> {
  const length = await store.size(from, file);
  await writeFile(transaction, file, length, async (writer) => {
    for (let at = 0; at < length; at += COPY_BYTES) {
      await writer.write(await store.read(from, file, at, Math.min(at + COPY_BYTES, length)));
    }
  });
}

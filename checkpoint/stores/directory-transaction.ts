/**
 * A save in progress in a directory store: exclusive creates in a hidden folder, and the rename that commits it.
 *
 * @module
 */
import { constants, type FileHandle, lstat, open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { StoreTransaction, StoreWriter } from "../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { errorCode, isMissing, storeError } from "./directory-errors.ts";
import { dropOwner } from "./leftovers.ts";
import { checkStoreName, MANIFEST_FILE } from "./names.ts";

/** What a rename answers when something stands at its target. */
const TAKEN: ReadonlySet<string | undefined> = new Set(["ENOTEMPTY", "EEXIST", "ENOTDIR", "EISDIR", "EPERM"]);

/** Most bytes of one system call: runtimes refuse or cut counts from 2 GiB. */
const MAX_IO_BYTES = 1 << 30;

/** Where a transaction takes place. */
export interface TransactionPlace {
  readonly root: string;
  readonly name: string;
  readonly id: string;
  /** The hidden folder. */
  readonly folder: string;
}

/** The transaction in an existing hidden folder. */
export function directoryTransaction({ root, name, id, folder }: TransactionPlace): StoreTransaction {
  let ended = false;
  const path = (file: string): string => {
    checkStoreName("file", file);
    if (ended) throw new CheckpointError(`save of ${name}: its transaction has ended`);
    return join(folder, file);
  };
  return {
    id,
    async create(file: string): Promise<StoreWriter> {
      try {
        const handle = await open(path(file), "wx");
        return fileWriter(handle, path(file), file);
      } catch (error) {
        throw storeError(`save of ${name}: create of ${file}`, error);
      }
    },
    async read(file: string): Promise<Uint8Array> {
      try {
        const handle = await open(path(file), constants.O_RDONLY | constants.O_NOFOLLOW);
        try {
          return new Uint8Array(await handle.readFile());
        } finally {
          await handle.close();
        }
      } catch (error) {
        throw storeError(`save of ${name}: read of ${file}`, error);
      }
    },
    async remove(file: string): Promise<void> {
      try {
        await rm(path(file));
      } catch (error) {
        throw storeError(`save of ${name}: removal of ${file}`, error);
      }
    },
    async commit(): Promise<void> {
      try {
        await lstat(path(MANIFEST_FILE)).catch((error: unknown) => {
          throw isMissing(error) ? new CheckpointError(`it has no ${MANIFEST_FILE}`) : error;
        });
        await dropOwner(folder);
        await syncDirectory(folder);
        // Of several committers one wins: a folder with files in it is never replaced by a rename.
        await rename(folder, join(root, name)).catch((error: unknown) => {
          throw TAKEN.has(errorCode(error))
            ? new CheckpointError(`the name is taken in ${root}`, { cause: error })
            : error;
        });
        ended = true;
        await syncDirectory(root);
      } catch (error) {
        throw storeError(`save of ${name}`, error);
      }
    },
    async abort(): Promise<void> {
      if (ended) return;
      ended = true;
      await rm(folder, { recursive: true, force: true }).catch((error: unknown) => {
        throw storeError(`abort of the save of ${name}`, error);
      });
    },
  };
}

/** Makes a directory's entries durable. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

function fileWriter(handle: FileHandle, path: string, file: string): StoreWriter {
  return {
    async write(bytes: Uint8Array): Promise<void> {
      try {
        for (let at = 0; at < bytes.length; ) {
          const { bytesWritten } = await handle.write(bytes, at, Math.min(bytes.length - at, MAX_IO_BYTES));
          at += bytesWritten;
        }
      } catch (error) {
        throw storeError(`write of ${file}`, error);
      }
    },
    async close(): Promise<void> {
      try {
        await handle.sync();
        await handle.close();
      } catch (error) {
        throw storeError(`close of ${file}`, error);
      }
    },
    async abort(): Promise<void> {
      // Also after a failed close: whatever state the handle is in, the file must go.
      await handle.close().catch(() => undefined);
      await rm(path, { force: true });
    },
  };
}

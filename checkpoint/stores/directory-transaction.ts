/**
 * A save in progress in a directory store: exclusive creates in a hidden folder, and the rename that commits it.
 *
 * @module
 */
import { join } from "node:path";
import type { StoreTransaction, StoreWriter } from "../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { isMissing, isTaken, storeError } from "./directory-errors.ts";
import { fileWriter, openFile, readFully, syncDirectory } from "./directory-files.ts";
import type { FileSystem } from "./file-system.ts";
import { dropOwner } from "./leftovers.ts";
import { checkStoreName, MANIFEST_FILE } from "./names.ts";

/** Where a transaction takes place. */
export interface TransactionPlace {
  readonly fs: FileSystem;
  readonly root: string;
  readonly name: string;
  readonly id: string;
  /** The hidden folder. */
  readonly folder: string;
}

/** The transaction in an existing hidden folder. */
export function directoryTransaction({ fs, root, name, id, folder }: TransactionPlace): StoreTransaction {
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
        const handle = await fs.open(path(file), "wx");
        return fileWriter(fs, handle, path(file), file);
      } catch (error) {
        throw storeError(`save of ${name}: create of ${file}`, error);
      }
    },
    async read(file: string): Promise<Uint8Array> {
      try {
        const { handle, length } = await openFile(fs, path(file));
        try {
          const bytes = new Uint8Array(length);
          await readFully(handle, bytes, 0);
          return bytes;
        } finally {
          await handle.close();
        }
      } catch (error) {
        throw storeError(`save of ${name}: read of ${file}`, error);
      }
    },
    async remove(file: string): Promise<void> {
      try {
        await fs.rm(path(file));
      } catch (error) {
        throw storeError(`save of ${name}: removal of ${file}`, error);
      }
    },
    async link(file: string, from: { readonly name: string; readonly file: string }): Promise<void> {
      checkStoreName("checkpoint", from.name);
      checkStoreName("file", from.file);
      try {
        const source = join(root, from.name, from.file);
        if (!(await fs.lstat(source)).isFile()) throw new CheckpointError("it is not a regular file");
        await fs.link(source, path(file));
      } catch (error) {
        throw storeError(`save of ${name}: link to ${from.file} of ${from.name}`, error);
      }
    },
    async commit(): Promise<void> {
      try {
        await fs.lstat(path(MANIFEST_FILE)).catch((error: unknown) => {
          throw isMissing(error) ? new CheckpointError(`it has no ${MANIFEST_FILE}`) : error;
        });
        await dropOwner(fs, folder);
        await syncDirectory(folder, fs);
        // Of several committers one wins: a folder with files in it is never replaced by a rename.
        await fs.rename(folder, join(root, name)).catch((error: unknown) => {
          throw isTaken(error)
            ? new CheckpointError(`the name is taken in ${root}`, { cause: error })
            : error;
        });
        await syncDirectory(root, fs).catch(async (error: unknown) => {
          // Not known to be durable: taken back, so that what failed is not there.
          await fs.rename(join(root, name), folder);
          throw error;
        });
        ended = true;
      } catch (error) {
        throw storeError(`save of ${name}`, error);
      }
    },
    async abort(): Promise<void> {
      if (ended) return;
      ended = true;
      await fs.rm(folder, { recursive: true, force: true }).catch((error: unknown) => {
        throw storeError(`abort of the save of ${name}`, error);
      });
    },
  };
}

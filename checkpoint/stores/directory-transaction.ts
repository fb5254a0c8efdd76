/**
 * A save in progress in a directory store: exclusive creates in a hidden folder, and the rename that commits it.
 *
 * @module
 */
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import type { StoreTransaction, StoreWriter } from "../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { isMissing, isTaken, storeError } from "./directory-errors.ts";
import { openFile, readFully, syncDirectory } from "./directory-files.ts";
import { fileAppender } from "./file-appender.ts";
import type { FileSystem } from "./file-system.ts";
import { dropOwner } from "./leftovers.ts";
import { checkStoreName, MANIFEST_FILE } from "./names.ts";

/** Bytes of one write of a large file. */
const WRITE_BYTES = 8 * 1024 * 1024;
/** Writes of a file under way at once. */
const WRITES = 2;

/** Where a transaction takes place. */
export interface TransactionPlace {
  readonly fs: FileSystem;
  readonly root: string;
  readonly name: string;
  readonly id: string;
  /** The hidden folder. */
  readonly folder: string;
  /** Length from which files are written past the page cache. */
  readonly directFrom: number;
}

/** The transaction in an existing hidden folder. */
export function directoryTransaction({
  fs,
  root,
  name,
  id,
  folder,
  directFrom,
}: TransactionPlace): StoreTransaction {
  let ended = false;
  const path = (file: string): string => {
    checkStoreName("file", file);
    if (ended) throw new CheckpointError(`save of ${name}: its transaction has ended`);
    return join(folder, file);
  };
  return {
    id,
    async create(file: string, bytes?: number): Promise<StoreWriter> {
      try {
        const handle = await fs.open(path(file), "wx+");
        const direct = bytes !== undefined && bytes >= directFrom;
        return await fileWriter(fs, handle, { path: path(file), file, bytes, direct });
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

/** A file that is to be written. */
interface NewFile {
  readonly path: string;
  /** For messages. */
  readonly file: string;
  /** Length, where it is known. */
  readonly bytes: number | undefined;
  /** Whether it goes past the page cache. */
  readonly direct: boolean;
}

/** Writes a file that was just created, and is open in `handle` for reading and writing. */
async function fileWriter(
  fs: FileSystem,
  handle: FileHandle,
  { path, file, bytes: length = WRITE_BYTES, direct }: NewFile,
): Promise<StoreWriter> {
  const bufferBytes = Math.min(WRITE_BYTES, Math.max(length, 1));
  const appender = await fileAppender(fs, handle, path, 0, { direct, bufferBytes, depth: WRITES });
  return {
    async write(bytes: Uint8Array): Promise<void> {
      try {
        await appender.write(bytes);
      } catch (error) {
        throw storeError(`write of ${file}`, error);
      }
    },
    async close(): Promise<void> {
      try {
        // What was gathered may be all of a small file.
        await appender.flush();
        await appender.settled();
      } catch (error) {
        throw storeError(`write of ${file}`, error);
      }
      try {
        await appender.sync();
        await appender.close();
      } catch (error) {
        throw storeError(`close of ${file}`, error);
      }
    },
    async abort(): Promise<void> {
      // Also after a failed close: whatever state the file is in, it must go.
      await appender.close().catch(() => undefined);
      await fs.rm(path, { force: true });
    },
  };
}

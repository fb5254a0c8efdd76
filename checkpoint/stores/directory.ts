/**
 * A checkpoint store in a directory: each checkpoint a folder. A save writes into a hidden folder beside them and ends
 * by renaming it, which the file system does wholly or not at all, and refuses when the name is taken by anything that
 * holds a file. Files, folder and parent are synced in that order before a commit counts as done.
 *
 * @module
 */
import { randomUUID } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { CheckpointStore, StoreReader, StoreTransaction } from "../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { isMissing, storeError } from "./directory-errors.ts";
import { exists, isFolder, makeDirectory, openFile, readFully, syncDirectory } from "./directory-files.ts";
import { directoryTransaction } from "./directory-transaction.ts";
import { type FileSystem, nodeFileSystem } from "./file-system.ts";
import { recordOwner, sweepLeftovers } from "./leftovers.ts";
import { checkRange, checkStoreName, isStoreName, MANIFEST_FILE } from "./names.ts";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Smaller files gain nothing from going past the page cache. */
const DIRECT_FROM = 8 * 1024 * 1024;

/** Options of a directory store. */
export interface DirectoryStoreOptions {
  /** Default: the real one. */
  readonly fs?: FileSystem;
  /**
   * Length in bytes from which files are written past the page cache, where that can be. Default: 8 MiB. `Infinity`:
   * none are.
   */
  readonly directFrom?: number;
}

/** The store of a plain path; `undefined` for locations of another kind (`scheme://...`, `memory:NAME`). */
export function openDirectoryStore(location: string): CheckpointStore | undefined {
  if (location === "" || location.includes("://") || location.startsWith("memory:")) return undefined;
  return directoryStore(location);
}

/** A store in the directory `location`, which is made by the first save. */
export function directoryStore(location: string, options: DirectoryStoreOptions = {}): CheckpointStore {
  const { fs = nodeFileSystem, directFrom = DIRECT_FROM } = options;
  const root = resolve(location);
  const temporaryOf = (name: string, id: string): string => join(root, `.tmp-${name}-${id}`);

  const checkCommitted = async (name: string): Promise<void> => {
    checkStoreName("checkpoint", name);
    const folder = join(root, name);
    if (!(await isFolder(fs, folder)) || !(await exists(fs, join(folder, MANIFEST_FILE)))) {
      throw new CheckpointError(`checkpoint ${name}: not in ${root}`);
    }
  };
  const fileError = (name: string, file: string, error: unknown): CheckpointError =>
    isMissing(error)
      ? new CheckpointError(`checkpoint ${name}: no file ${file}`, { cause: error })
      : storeError(`checkpoint ${name}: file ${file}`, error);
  /** A committed file, for as long as `use` runs. */
  const withFile = async <T>(
    name: string,
    file: string,
    use: (handle: FileHandle, length: number) => Promise<T>,
  ): Promise<T> => {
    checkStoreName("file", file);
    await checkCommitted(name);
    try {
      const { handle, length } = await openFile(fs, join(root, name, file));
      try {
        return await use(handle, length);
      } finally {
        await handle.close();
      }
    } catch (error) {
      throw fileError(name, file, error);
    }
  };

  return Object.freeze<CheckpointStore>({
    location,

    async begin(name: string): Promise<StoreTransaction> {
      checkStoreName("checkpoint", name);
      const id = randomUUID();
      const folder = temporaryOf(name, id);
      try {
        await makeDirectory(fs, root);
        await sweepLeftovers(fs, root);
        if (await exists(fs, join(root, name))) throw new CheckpointError(`the name is taken in ${location}`);
        await fs.mkdir(folder);
        await recordOwner(fs, folder);
      } catch (error) {
        // What was made is of no use; the error is what to tell.
        await fs.rm(folder, { recursive: true, force: true }).catch(() => undefined);
        throw storeError(`save of ${name}`, error);
      }
      return directoryTransaction({ fs, root, name, id, folder, directFrom });
    },

    async join(name: string, id: string): Promise<StoreTransaction> {
      checkStoreName("checkpoint", name);
      const folder = temporaryOf(name, id);
      if (!UUID.test(id) || !(await isFolder(fs, folder)))
        throw new CheckpointError(`save of ${name}: no transaction ${id}`);
      return directoryTransaction({ fs, root, name, id, folder, directFrom });
    },

    async list(): Promise<readonly string[]> {
      try {
        const entries = await fs.readdir(root, { withFileTypes: true });
        const names = entries
          .filter((entry) => entry.isDirectory() && isStoreName(entry.name))
          .map((entry) => entry.name);
        const committed = await Promise.all(names.map((name) => exists(fs, join(root, name, MANIFEST_FILE))));
        return names.filter((_, i) => committed[i]).sort();
      } catch (error) {
        if (isMissing(error)) return [];
        throw storeError(`list of ${location}`, error);
      }
    },

    async size(name: string, file: string): Promise<number> {
      return withFile(name, file, async (_, length) => length);
    },

    async files(name: string): Promise<readonly string[]> {
      await checkCommitted(name);
      try {
        return (await fs.readdir(join(root, name))).sort();
      } catch (error) {
        throw storeError(`checkpoint ${name}`, error);
      }
    },

    async read(name: string, file: string, begin: number, end: number): Promise<Uint8Array> {
      return withFile(name, file, async (handle, length) => {
        checkRange(file, begin, end, length);
        const bytes = new Uint8Array(end - begin);
        await readFully(handle, bytes, begin);
        return bytes;
      });
    },

    async open(name: string, file: string): Promise<StoreReader> {
      checkStoreName("file", file);
      await checkCommitted(name);
      const fail = (error: unknown): never => {
        throw fileError(name, file, error);
      };
      const { handle, length } = await openFile(fs, join(root, name, file)).catch(fail);
      let last: Promise<void> = Promise.resolve();
      return {
        async readInto(target: Uint8Array, begin: number): Promise<void> {
          checkRange(file, begin, begin + target.length, length);
          // One after the other: two at once look like random access to the system, which then reads nothing ahead.
          const reading = last.then(() => readFully(handle, target, begin));
          last = reading.catch(() => undefined);
          await reading.catch(fail);
        },
        close: () => handle.close(),
      };
    },

    async delete(name: string): Promise<void> {
      await checkCommitted(name);
      // Renamed first, so that it vanishes from the list whole; what a crash leaves behind, the next save sweeps.
      const trash = join(root, `.trash-${name}-${randomUUID()}`);
      try {
        await fs.rename(join(root, name), trash);
        await syncDirectory(root, fs);
        await fs.rm(trash, { recursive: true, force: true });
      } catch (error) {
        throw storeError(`delete of ${name}`, error);
      }
    },
  });
}

/**
 * A checkpoint store in a directory: each checkpoint a folder. A save writes into a hidden folder beside them and ends
 * by renaming it, which the file system does wholly or not at all, and refuses when the name is taken by anything that
 * holds a file. Files, folder and parent are synced in that order before a commit counts as done.
 *
 * @module
 */
import { randomUUID } from "node:crypto";
import { constants, type FileHandle, lstat, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import type { CheckpointStore, StoreTransaction } from "../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { isMissing, storeError } from "./directory-errors.ts";
import { directoryTransaction, syncDirectory } from "./directory-transaction.ts";
import { recordOwner, sweepLeftovers } from "./leftovers.ts";
import { checkRange, checkStoreName, isStoreName, MANIFEST_FILE } from "./names.ts";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** The store of a plain path; `undefined` for locations of another kind (`scheme://...`, `memory:NAME`). */
export function openDirectoryStore(location: string): CheckpointStore | undefined {
  if (location === "" || location.includes("://") || location.startsWith("memory:")) return undefined;
  return directoryStore(location);
}

/** A store in the directory `location`, which is made by the first save. */
export function directoryStore(location: string): CheckpointStore {
  const root = resolve(location);
  const temporaryOf = (name: string, id: string): string => join(root, `.tmp-${name}-${id}`);

  return Object.freeze<CheckpointStore>({
    location,

    async begin(name: string): Promise<StoreTransaction> {
      checkStoreName("checkpoint", name);
      const id = randomUUID();
      try {
        await makeDirectory(root);
        await sweepLeftovers(root);
        if (await exists(join(root, name))) throw new CheckpointError(`the name is taken in ${location}`);
        await mkdir(temporaryOf(name, id));
        await recordOwner(temporaryOf(name, id));
      } catch (error) {
        throw storeError(`save of ${name}`, error);
      }
      return directoryTransaction({ root, name, id, folder: temporaryOf(name, id) });
    },

    async join(name: string, id: string): Promise<StoreTransaction> {
      checkStoreName("checkpoint", name);
      const folder = temporaryOf(name, id);
      if (!UUID.test(id) || !(await isFolder(folder)))
        throw new CheckpointError(`save of ${name}: no transaction ${id}`);
      return directoryTransaction({ root, name, id, folder });
    },

    async list(): Promise<readonly string[]> {
      try {
        const entries = await readdir(root, { withFileTypes: true });
        const names = entries
          .filter((entry) => entry.isDirectory() && isStoreName(entry.name))
          .map((entry) => entry.name);
        const committed = await Promise.all(names.map((name) => exists(join(root, name, MANIFEST_FILE))));
        return names.filter((_, i) => committed[i]).sort();
      } catch (error) {
        if (isMissing(error)) return [];
        throw storeError(`list of ${location}`, error);
      }
    },

    async size(name: string, file: string): Promise<number> {
      return withFile(root, name, file, async (_, length) => length);
    },

    async files(name: string): Promise<readonly string[]> {
      await checkCommitted(root, name);
      try {
        return (await readdir(join(root, name))).sort();
      } catch (error) {
        throw storeError(`checkpoint ${name}`, error);
      }
    },

    async read(name: string, file: string, begin: number, end: number): Promise<Uint8Array> {
      return withFile(root, name, file, async (handle, length) => {
        checkRange(file, begin, end, length);
        const bytes = new Uint8Array(end - begin);
        for (let at = 0; at < bytes.length; ) {
          // At most 1 GiB a call: runtimes refuse or cut counts from 2 GiB.
          const count = Math.min(bytes.length - at, 1 << 30);
          const { bytesRead } = await handle.read(bytes, at, count, begin + at);
          if (bytesRead === 0) throw new CheckpointError(`it ends at byte ${begin + at}, due is ${end}`);
          at += bytesRead;
        }
        return bytes;
      });
    },

    async delete(name: string): Promise<void> {
      await checkCommitted(root, name);
      // Renamed first, so that it vanishes from the list whole; what a crash leaves behind, the next save sweeps.
      const trash = join(root, `.trash-${name}-${randomUUID()}`);
      try {
        await rename(join(root, name), trash);
        await syncDirectory(root);
        await rm(trash, { recursive: true, force: true });
      } catch (error) {
        throw storeError(`delete of ${name}`, error);
      }
    },
  });
}

/** Runs `use` on a committed file, opened without following links and only if it is a regular file. */
async function withFile<T>(
  root: string,
  name: string,
  file: string,
  use: (handle: FileHandle, length: number) => Promise<T>,
): Promise<T> {
  checkStoreName("file", file);
  await checkCommitted(root, name);
  try {
    // Not blocking: a pipe in the place of a file must not hang the reader.
    const handle = await open(
      join(root, name, file),
      constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK,
    );
    try {
      const stat = await handle.stat();
      if (!stat.isFile()) throw new CheckpointError("it is not a regular file");
      return await use(handle, stat.size);
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (isMissing(error)) throw new CheckpointError(`checkpoint ${name}: no file ${file}`, { cause: error });
    throw storeError(`checkpoint ${name}: file ${file}`, error);
  }
}

async function checkCommitted(root: string, name: string): Promise<void> {
  checkStoreName("checkpoint", name);
  const folder = join(root, name);
  if (!(await isFolder(folder)) || !(await exists(join(folder, MANIFEST_FILE)))) {
    throw new CheckpointError(`checkpoint ${name}: not in ${root}`);
  }
}

/** Makes a directory and those above it, each entry durable. */
async function makeDirectory(path: string): Promise<void> {
  if (await exists(path)) return;
  await makeDirectory(dirname(path));
  // Several ranks or jobs may be here at once; recursive does not mind.
  await mkdir(path, { recursive: true });
  await syncDirectory(dirname(path));
}

async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

/** Whether a path is a folder itself; a link to one is not. */
async function isFolder(path: string): Promise<boolean> {
  return lstat(path).then(
    (stat) => stat.isDirectory(),
    () => false,
  );
}

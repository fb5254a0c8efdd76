/**
 * Files and folders of a directory store: durable writing, reading without following links, and what stands where.
 *
 * @module
 */
import { constants } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { isMissing } from "./directory-errors.ts";
import { type FileSystem, nodeFileSystem } from "./file-system.ts";

/** Most bytes of one system call: runtimes refuse or cut counts from 2 GiB. */
const MAX_IO_BYTES = 1 << 30;

/** Makes a folder's entries durable. */
export async function syncDirectory(path: string, fs: FileSystem = nodeFileSystem): Promise<void> {
  const directory = await fs.open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** Makes a folder and those above it, each entry durable. */
export async function makeDirectory(fs: FileSystem, path: string): Promise<void> {
  if (await exists(fs, path)) return;
  await makeDirectory(fs, dirname(path));
  // Several ranks or jobs may be here at once; recursive does not mind.
  await fs.mkdir(path, { recursive: true });
  await syncDirectory(dirname(path), fs);
}

/** Whether anything, a dangling link too, stands at a path. */
export async function exists(fs: FileSystem, path: string): Promise<boolean> {
  try {
    await fs.lstat(path);
    return true;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

/** Whether a path is a folder itself; a link to one is not. */
export async function isFolder(fs: FileSystem, path: string): Promise<boolean> {
  return fs.lstat(path).then(
    (stat) => stat.isDirectory(),
    () => false,
  );
}

/** Opens a regular file to be read. @throws CheckpointError for links and what is no file; file-system errors as they come. */
export async function openFile(
  fs: FileSystem,
  path: string,
): Promise<{ readonly handle: FileHandle; readonly length: number }> {
  // Not blocking: a pipe in the place of a file must not hang the reader.
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const handle = await fs.open(path, flags);
  try {
    const stat = await handle.stat();
    if (!stat.isFile()) throw new CheckpointError("it is not a regular file");
    return { handle, length: stat.size };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** Fills `target` with the bytes from `begin` on. @throws CheckpointError when the file ends before. */
export async function readFully(handle: FileHandle, target: Uint8Array, begin: number): Promise<void> {
  for (let at = 0; at < target.length; ) {
    const count = Math.min(target.length - at, MAX_IO_BYTES);
    const { bytesRead } = await handle.read(target, at, count, begin + at);
    if (bytesRead === 0) {
      throw new CheckpointError(`it ends at byte ${begin + at}, due is ${begin + target.length}`);
    }
    at += bytesRead;
  }
}

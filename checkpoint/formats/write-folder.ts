/**
 * Writes files and folders so that they appear whole or not at all: under a hidden name beside the target, made durable,
 * then renamed.
 *
 * @module
 */
import { randomUUID } from "node:crypto";
import { constants, type FileHandle, lstat, mkdir, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { reasonOf } from "./byte-source.ts";

/** Most bytes of one system call: runtimes refuse or cut counts from 2 GiB. */
const MAX_WRITE_BYTES = 1 << 30;

/** Appends to a file; the bytes may be reused when it resolves. */
export type Append = (bytes: Uint8Array) => Promise<void>;

/**
 * Writes a file and makes it durable. A file of that name is replaced by the finished one.
 *
 * @throws CheckpointError when it cannot be written; then nothing is left of it.
 */
export async function writeFileWhole(path: string, fill: (append: Append) => Promise<void>): Promise<void> {
  const target = resolve(path);
  const temporary = join(dirname(target), `.${basename(target)}.tmp-${randomUUID()}`);
  try {
    await writeNew(temporary, fill);
    await rename(temporary, target);
    await syncFolder(dirname(target));
  } catch (error) {
    await rm(temporary, { force: true });
    throw new CheckpointError(`write of ${path}: ${reasonOf(error)}`, { cause: error });
  }
}

/** Writes a file that must not exist, and makes it durable. */
export async function writeNew(path: string, fill: (append: Append) => Promise<void>): Promise<void> {
  const file = await open(path, "wx");
  try {
    await fill((bytes) => writeAll(file, bytes));
    await file.sync();
  } finally {
    await file.close();
  }
}

/**
 * Makes a folder. `fill` is given a hidden folder to write into, which then takes the name.
 *
 * @param options.overwrite replaces what stands there, in the end
 * @throws CheckpointError when something stands there, or it cannot be written; then nothing is left of it.
 */
export async function writeFolderWhole(
  path: string,
  options: { readonly overwrite: boolean },
  fill: (folder: string) => Promise<void>,
): Promise<void> {
  const target = resolve(path);
  const hidden = (what: string): string =>
    join(dirname(target), `.${basename(target)}.${what}-${randomUUID()}`);
  const temporary = hidden("tmp");
  try {
    if (!options.overwrite && (await exists(target))) throw new CheckpointError("it exists already");
    await mkdir(dirname(target), { recursive: true });
    await mkdir(temporary);
    await fill(temporary);
    await syncFolder(temporary);
    const old = options.overwrite && (await exists(target)) ? hidden("old") : undefined;
    if (old !== undefined) await rename(target, old);
    // Refused when something with files in it has come to stand there.
    await rename(temporary, target);
    await syncFolder(dirname(target));
    if (old !== undefined) await rm(old, { recursive: true, force: true });
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw new CheckpointError(`write of ${path}: ${reasonOf(error)}`, { cause: error });
  }
}

/** Whether anything has this name. */
export async function exists(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  );
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, at, Math.min(bytes.length - at, MAX_WRITE_BYTES));
    at += bytesWritten;
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/**
 * Positional writes to a file: past the page cache (`O_DIRECT`) where system, file system and runtime can, elsewhere
 * through it, the disk at work while more comes.
 *
 * A checkpoint that goes through the cache costs more time for finding and filling pages than for hashing, and drives
 * from memory what others need there. Bun writes from where the bytes lie; Deno copies them first to memory of any kind,
 * which the system refuses for direct writes, and the cache is used.
 *
 * @module
 */
import { constants } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { errorCode } from "./directory-errors.ts";
import type { FileSystem } from "./file-system.ts";

/** A multiple of any disk's block: what position, length and memory of direct writes are multiples of. */
export const BLOCK: number = 4096;

/** Bytes written through the cache after which the disk is set to work on them. */
const FLUSH_BYTES = 32 * 1024 * 1024;

/** An open file. */
export interface BlockFile {
  /** Writes whole blocks; they may go past the page cache. */
  writeBlocks(bytes: Uint8Array, position: number): Promise<void>;
  /** Writes bytes of any kind. */
  write(bytes: Uint8Array, position: number): Promise<void>;
  /** Makes durable what was written. */
  sync(): Promise<void>;
  /** @throws when the disk did not take what was written: whoever opens the file next would not be told. */
  close(): Promise<void>;
}

/** The file at `path`, which `handle` has open. The handle is its own from here on, and closed when this fails. */
export async function blockFile(
  fs: FileSystem,
  handle: FileHandle,
  path: string,
  wantsDirect: boolean,
): Promise<BlockFile> {
  const abandon = async (error: unknown): Promise<never> => {
    await handle.close();
    throw error;
  };
  const direct = wantsDirect ? await openDirect(fs, path).catch(abandon) : undefined;
  let refused = false;
  let unflushed = 0;
  let flushing: Promise<void> | undefined;
  let failure: { readonly error: unknown } | undefined;

  const write = async (bytes: Uint8Array, position: number): Promise<void> => {
    await writeFully(handle, bytes, position);
    unflushed += bytes.length;
    if (unflushed < FLUSH_BYTES || flushing !== undefined) return;
    unflushed = 0;
    flushing = handle
      .datasync()
      .catch((error: unknown) => {
        // A later sync would not tell of it again.
        failure = { error };
      })
      .then(() => {
        flushing = undefined;
      });
  };
  return {
    write,
    async writeBlocks(bytes: Uint8Array, position: number): Promise<void> {
      if (direct === undefined || refused) return await write(bytes, position);
      try {
        await writeFully(direct, bytes, position);
      } catch (error) {
        if (!isRefused(error)) throw error;
        // Others may be under way: the handle stays open until the end.
        refused = true;
        await write(bytes, position);
      }
    },
    async sync(): Promise<void> {
      await flushing;
      if (failure !== undefined) throw failure.error;
      await handle.sync();
    },
    async close(): Promise<void> {
      await flushing;
      try {
        await direct?.close();
      } finally {
        await handle.close();
      }
      if (failure !== undefined) throw failure.error;
    },
  };
}

/** The same file for direct writes, or `undefined` where there are none. */
async function openDirect(fs: FileSystem, path: string): Promise<FileHandle | undefined> {
  // Not on all systems, whatever the types say.
  const flag: number | undefined = constants.O_DIRECT;
  if (flag === undefined) return undefined;
  return await fs.open(path, constants.O_WRONLY | constants.O_NOFOLLOW | flag).catch((error: unknown) => {
    if (isRefused(error)) return undefined;
    throw error;
  });
}

/** Whether an operation failed because it was a direct one. */
function isRefused(error: unknown): boolean {
  // Deno's error has no code.
  const code = errorCode(error) ?? (/os error (22|95)\b/.test(String(error)) ? "EINVAL" : undefined);
  return code === "EINVAL" || code === "ENOTSUP" || code === "EOPNOTSUPP";
}

async function writeFully(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, at, bytes.length - at, position + at);
    at += bytesWritten;
  }
}

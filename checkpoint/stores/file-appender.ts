/**
 * Appending to a file: bytes are gathered in buffers, as large writes that may go past the page cache need, and another
 * thread may look at them meanwhile. What is left at the end goes through the cache: the file never holds a byte that
 * was not appended.
 *
 * @module
 */
import type { FileHandle } from "node:fs/promises";
import { RUNTIME } from "../../core/runtime/runtime.ts";
import { BLOCK, blockFile } from "./block-file.ts";
import { readFully } from "./directory-files.ts";
import type { FileSystem } from "./file-system.ts";

/** Appends to one file. Calls must not overlap, and after a failure there may be only `close`. */
export interface FileAppender {
  /** Appends; the bytes may be used again when it resolves, and may not be in the file yet. */
  write(bytes: Uint8Array): Promise<void>;
  /** Sets all that was written on its way to the file. More may be written after it with a `depth` of one only. */
  flush(): Promise<void>;
  /** Resolves when all that is on its way is in the file. The one call that others may overlap. */
  settled(): Promise<void>;
  /** Flushes, and makes the file durable. */
  sync(): Promise<void>;
  /** Waits for what is on its way, and closes the file. @throws when the disk did not take what is in the file. */
  close(): Promise<void>;
}

/** How to append. */
export interface AppendOptions {
  /** Whether to try to go past the page cache. */
  readonly direct: boolean;
  /** Bytes of one write. */
  readonly bufferBytes: number;
  /** Writes under way at once. With one, the file is without a hole at every moment. */
  readonly depth: number;
  /** Shown all bytes in order, in memory (shared, save under Deno) that stays as it is until the answer resolves. */
  readonly seen?: ((bytes: Uint8Array) => Promise<void>) | undefined;
}

/** Buffers that may wait to have been seen, beside those that are being written. */
const MOST_UNSEEN = 2;

/**
 * An appender to the file at `path`, which `handle` has open for reading and writing, and which has `offset` bytes. The
 * handle is the appender's from here on, and closed when this fails.
 */
export async function fileAppender(
  fs: FileSystem,
  handle: FileHandle,
  path: string,
  offset: number,
  options: AppendOptions,
): Promise<FileAppender> {
  const { depth, seen } = options;
  const bufferBytes = Math.ceil(options.bufferBytes / BLOCK) * BLOCK;
  const file = await blockFile(fs, handle, path, options.direct);
  let failure: { readonly error: unknown } | undefined;
  const fail = (error: unknown): void => {
    failure ??= { error };
  };
  const check = (): void => {
    if (failure !== undefined) throw failure.error;
  };

  let buffer = takeBuffer(bufferBytes);
  /** Where the buffer belongs; a multiple of the block. */
  let position = offset - (offset % BLOCK);
  /** Bytes in the buffer, and how many of them are in the file already. */
  let filled = offset - position;
  let old = filled;
  try {
    if (old > 0) await readFully(handle, buffer.subarray(0, old), position);
  } catch (error) {
    await file.close();
    throw error;
  }

  /** Under way, the oldest first: writes, and uses of buffers by writes and by who sees them. */
  const writes: Promise<void>[] = [];
  const uses: Promise<void>[] = [];

  const writeOut = async (bytes: Uint8Array, at: number): Promise<void> => {
    const whole = bytes.length - (bytes.length % BLOCK);
    if (whole > 0) await file.writeBlocks(bytes.subarray(0, whole), at);
    if (whole < bytes.length) await file.write(bytes.subarray(whole), at + whole);
  };
  /** Sets the buffer on its way, and takes another, which begins with the block that is not whole yet. */
  const hand = async (): Promise<void> => {
    const full = buffer;
    const at = position;
    const shown = seen?.(full.subarray(old, filled)).catch(fail);
    if (writes.length >= depth) {
      // Listed until it has ended: `settled` may be called meanwhile.
      await writes[0];
      writes.shift();
    }
    check();
    const writing = writeOut(full.subarray(0, filled), at).catch(fail);
    writes.push(writing);
    uses.push(Promise.all([writing, shown]).then(() => keepBuffer(full)));

    const whole = filled - (filled % BLOCK);
    buffer = takeBuffer(bufferBytes);
    buffer.set(full.subarray(whole, filled));
    position += whole;
    filled -= whole;
    old = filled;
    if (uses.length > depth + MOST_UNSEEN) await uses.shift();
    check();
  };
  const settled = async (): Promise<void> => {
    await Promise.all(writes);
    check();
  };
  const flush = async (): Promise<void> => {
    check();
    if (filled > old) await hand();
  };
  return {
    async write(bytes: Uint8Array): Promise<void> {
      check();
      for (let at = 0; at < bytes.length; ) {
        const count = Math.min(bytes.length - at, bufferBytes - filled);
        buffer.set(bytes.subarray(at, at + count), filled);
        at += count;
        filled += count;
        if (filled === bufferBytes) await hand();
      }
    },
    flush,
    settled,
    async sync(): Promise<void> {
      await flush();
      await settled();
      await file.sync();
    },
    async close(): Promise<void> {
      await Promise.all(writes);
      // After a failure somebody may still look at it.
      if (failure === undefined) keepBuffer(buffer);
      buffer = NO_BUFFER;
      await file.close();
    },
  };
}

/** Bytes of buffers that are kept for the next file, at most: touching fresh memory costs more than writing it. */
const KEPT_BYTES = 32 * 1024 * 1024;
const NO_BUFFER = new Uint8Array(0);
const kept: Uint8Array[] = [];

function takeBuffer(bytes: number): Uint8Array {
  const found = kept.findLastIndex((buffer) => buffer.length === bytes);
  if (found >= 0) return kept.splice(found, 1)[0]!;
  // Shared memory begins at a page, and another thread may look at it. Deno, which writes only through the cache, copies
  // such memory byte by byte.
  const Memory = RUNTIME.name === "deno" ? ArrayBuffer : SharedArrayBuffer;
  return new Uint8Array(new Memory(bytes));
}

function keepBuffer(buffer: Uint8Array): void {
  kept.push(buffer);
  let total = kept.reduce((sum, { length }) => sum + length, 0);
  while (total > KEPT_BYTES) total -= kept.shift()!.length;
}

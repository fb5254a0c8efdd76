/**
 * Bytes that can be read by range: a file, or a part of one. What all readers of formats stand on.
 *
 * @module
 */
import { constants, open } from "node:fs/promises";
import { CheckpointError } from "../../core/contracts/errors.ts";

/** Most bytes of one system call: runtimes refuse or cut counts from 2 GiB. */
const MAX_READ_BYTES = 1 << 30;

/** A run of bytes somewhere. */
export interface ByteSource {
  readonly length: number;
  /** Bytes `[begin, end)`, not to be changed. @throws CheckpointError when they are not all there. */
  read(begin: number, end: number): Promise<Uint8Array>;
}

/** A file that is open. */
export interface FileSource extends ByteSource {
  close(): Promise<void>;
}

/** How a file is opened. */
export interface OpenFileOptions {
  /** Refuse a symbolic link in the file's place. Hugging Face's cache consists of links, so that the default is to follow. */
  readonly refuseLinks?: boolean;
}

/** Opens a regular file. @throws CheckpointError when it is none or cannot be read. */
export async function openFile(path: string, options: OpenFileOptions = {}): Promise<FileSource> {
  // Not blocking: a pipe in the place of a file must not hang the reader.
  const flags =
    constants.O_RDONLY | constants.O_NONBLOCK | (options.refuseLinks === true ? constants.O_NOFOLLOW : 0);
  const file = await open(path, flags).catch((error: unknown) => {
    throw new CheckpointError(`open of ${path}: ${reasonOf(error)}`, { cause: error });
  });
  const stat = await file.stat();
  if (!stat.isFile()) {
    await file.close();
    throw new CheckpointError(`open of ${path}: it is not a regular file`);
  }
  return {
    length: stat.size,
    async read(begin: number, end: number): Promise<Uint8Array> {
      checkRange(path, begin, end, stat.size);
      const bytes = new Uint8Array(end - begin);
      for (let at = 0; at < bytes.length; ) {
        const count = Math.min(bytes.length - at, MAX_READ_BYTES);
        const { bytesRead } = await file.read(bytes, at, count, begin + at);
        // A file that was cut after it was opened does not pass.
        if (bytesRead === 0)
          throw new CheckpointError(`read of ${path}: it ends at byte ${begin + at}, due is ${end}`);
        at += bytesRead;
      }
      return bytes;
    },
    close: () => file.close(),
  };
}

/** Bytes `[begin, end)` of a source, which are counted from 0 in the result. */
export function partOf(source: ByteSource, begin: number, end: number): ByteSource {
  checkRange("a part", begin, end, source.length);
  return {
    length: end - begin,
    read: async (from, to) => {
      checkRange("a part", from, to, end - begin);
      return source.read(begin + from, begin + to);
    },
  };
}

/** Bytes in memory as a source. */
export function memorySource(bytes: Uint8Array): ByteSource {
  return {
    length: bytes.length,
    read: async (begin, end) => {
      checkRange("memory", begin, end, bytes.length);
      return bytes.subarray(begin, end);
    },
  };
}

/**
 * Keeps the first and last bytes of a source at hand, where archives have what describes them: two reads, or one for a
 * small source, answer all questions about it.
 */
export async function withEndsAtHand(source: ByteSource, bytes: number): Promise<ByteSource> {
  if (source.length <= 4 * bytes) return memorySource(await source.read(0, source.length));
  const head = await source.read(0, bytes);
  const tailBegin = source.length - bytes;
  const tail = await source.read(tailBegin, source.length);
  return {
    length: source.length,
    read: async (begin, end) => {
      if (begin >= 0 && end <= bytes && begin <= end) return head.subarray(begin, end);
      if (begin >= tailBegin && end <= source.length && begin <= end)
        return tail.subarray(begin - tailBegin, end - tailBegin);
      return source.read(begin, end);
    },
  };
}

/** Memory for a tensor, or a part of one. @throws CheckpointError when it is more than one array of this runtime holds. */
export function roomFor(name: string, bytes: number): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(bytes);
  } catch (error) {
    throw new CheckpointError(
      `read of ${name}: ${bytes} bytes do not fit into one array, it is to be read by boxes`,
      {
        cause: error,
      },
    );
  }
}

/** What went wrong, in one line. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function checkRange(what: string, begin: number, end: number, length: number): void {
  const valid =
    Number.isSafeInteger(begin) && Number.isSafeInteger(end) && begin >= 0 && begin <= end && end <= length;
  if (!valid) throw new CheckpointError(`read of ${what}: bytes ${begin} to ${end}, there are ${length}`);
}

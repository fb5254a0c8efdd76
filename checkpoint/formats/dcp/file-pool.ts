/**
 * Files that are opened when they are first read and stay open, up to a number: a checkpoint of a thousand ranks has more
 * files than a process may hold.
 *
 * @module
 */
import { type ByteSource, type FileSource, partOf } from "../byte-source.ts";

/** Files that stay open without being read. */
const MAX_IDLE = 64;

/** Open files by name. */
export interface FilePool {
  /** Bytes `[begin, end)` of a file as a source, which opens the file again when it has been closed since. */
  part(file: string, begin: number, end: number): ByteSource;
  close(): Promise<void>;
}

interface Pooled {
  readonly source: Promise<FileSource>;
  readers: number;
}

/** A pool over the files that `open` opens. */
export function filePool(open: (file: string) => Promise<FileSource>): FilePool {
  const files = new Map<string, Pooled>();
  const closeIdle = async (file: string, pooled: Pooled): Promise<void> => {
    files.delete(file);
    // A file that could not be opened has told so to whoever wanted it.
    await pooled.source.then(
      (source) => source.close(),
      () => undefined,
    );
  };
  const withFile = async <T>(file: string, use: (source: FileSource) => Promise<T>): Promise<T> => {
    let pooled = files.get(file);
    if (pooled === undefined) {
      pooled = { source: open(file), readers: 0 };
      files.set(file, pooled);
    }
    pooled.readers += 1;
    try {
      return await use(await pooled.source);
    } finally {
      pooled.readers -= 1;
      const idle = files.size > MAX_IDLE ? [...files].find(([, { readers }]) => readers === 0) : undefined;
      if (idle !== undefined) await closeIdle(...idle);
    }
  };
  return {
    part: (file, begin, end) => ({
      length: end - begin,
      read: (from, to) => withFile(file, (source) => partOf(source, begin, end).read(from, to)),
    }),
    async close(): Promise<void> {
      await Promise.all([...files].map(([file, pooled]) => closeIdle(file, pooled)));
    },
  };
}

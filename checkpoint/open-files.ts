/**
 * The files of one checkpoint, opened when they are first read and kept open for more, a bounded number at a time.
 *
 * @module
 */
import type { CheckpointStore, StoreReader } from "../core/contracts/checkpointer.ts";
import { CheckpointError } from "../core/contracts/errors.ts";

/** Files that stay open; more than anybody reads at one moment. */
export const KEPT_FILES: number = 64;

/** Reads into the caller's memory. */
export interface OpenFiles {
  /** Fills `target` with the bytes of a file from `begin` on. @throws CheckpointError when it has not as many. */
  readInto(file: string, target: Uint8Array, begin: number): Promise<void>;
  /** Tells that the reads of a file to come take bytes `[begin, end)`, in order and without a gap. */
  expect(file: string, begin: number, end: number): void;
  close(): Promise<void>;
}

/** The files of checkpoint `name`, of a store that opens files or reads ranges. */
export function openFiles(store: CheckpointStore, name: string): OpenFiles {
  const readers = new Map<string, Promise<StoreReader>>();
  const end = async (file: string): Promise<void> => {
    const reader = readers.get(file);
    readers.delete(file);
    // One that could not be opened has nothing to close, and was reported to its reader.
    await reader?.then(
      (opened) => opened.close(),
      () => undefined,
    );
  };
  const expected = new Map<string, { readonly begin: number; readonly end: number }>();
  return {
    expect(file: string, begin: number, end: number): void {
      expected.set(file, { begin, end });
    },
    async readInto(file: string, target: Uint8Array, begin: number): Promise<void> {
      const extent = expected.get(file);
      expected.delete(file);
      let reader = readers.get(file);
      if (reader === undefined) {
        reader = store.open?.(name, file) ?? Promise.resolve(rangeReader(store, name, file));
        if (readers.size >= KEPT_FILES) await end(readers.keys().next().value!);
      } else {
        readers.delete(file);
      }
      // Last in the order: the first one is the one that was used longest ago.
      readers.set(file, reader);
      const opened = await reader;
      if (extent !== undefined) opened.expect?.(extent.begin, extent.end);
      await opened.readInto(target, begin);
    },
    async close(): Promise<void> {
      for (const file of [...readers.keys()]) await end(file);
    },
  };
}

/** Chunks of a file's first `length` bytes, of which the next is fetched while one is used; each is valid until the next is asked for. */
export async function* fileChunks(
  store: CheckpointStore,
  name: string,
  file: string,
  length: number,
  chunkBytes: number,
): AsyncGenerator<{ readonly begin: number; readonly bytes: Uint8Array }> {
  const files = openFiles(store, name);
  const buffers = [0, 1].map(() => new Uint8Array(Math.min(chunkBytes, length)));
  const fetch = async (index: number): Promise<Uint8Array> => {
    const begin = index * chunkBytes;
    const bytes = buffers[index % 2]!.subarray(0, Math.min(chunkBytes, length - begin));
    await files.readInto(file, bytes, begin);
    return bytes;
  };
  let ahead: Promise<Uint8Array> | undefined;
  try {
    for (let index = 0; index * chunkBytes < length; index++) {
      const bytes = await (ahead ?? fetch(index));
      ahead = (index + 1) * chunkBytes < length ? fetch(index + 1) : undefined;
      // Its failure is met when its turn comes.
      ahead?.catch(() => undefined);
      yield { begin: index * chunkBytes, bytes };
    }
  } finally {
    await ahead?.catch(() => undefined);
    await files.close();
  }
}

function rangeReader(store: CheckpointStore, name: string, file: string): StoreReader {
  return {
    async readInto(target: Uint8Array, begin: number): Promise<void> {
      const bytes = await store.read(name, file, begin, begin + target.length);
      if (bytes.length !== target.length) {
        throw new CheckpointError(
          `checkpoint ${name}: ${file}: ${bytes.length} bytes came, due are ${target.length} from ${begin}`,
        );
      }
      target.set(bytes);
    },
    close: async () => undefined,
  };
}

/**
 * Verified reads from a checkpoint: every block that a range touches is read whole and compared with its CRC-32 before
 * any byte of it is handed out; what is read straight into the caller's memory is compared there. The last block of each
 * file stays at hand, since the next range often begins in it.
 *
 * Buffers are used again: a fresh one for each read costs more than reading and checking it.
 *
 * @module
 */
import { crc32 } from "node:zlib";
import type { CheckpointStore } from "../core/contracts/checkpointer.ts";
import { CheckpointError } from "../core/contracts/errors.ts";
import { BLOCK_BYTES } from "./digest.ts";
import type { ManifestFile } from "./manifest.ts";
import { KEPT_FILES, openFiles } from "./open-files.ts";

/** A range of a file. */
export interface ByteRange {
  readonly file: string;
  readonly begin: number;
  readonly end: number;
  /** Where to read it, of its length; for ranges of whole blocks. Absent: into memory of the reader's. */
  readonly into?: Uint8Array | undefined;
}

/** Reads ranges of a checkpoint's files. */
export interface BlockReader {
  /**
   * Bytes `[begin, end)`, valid until the next call.
   *
   * @throws CheckpointError that names file and block when a block is damaged.
   */
  read(file: string, begin: number, end: number): Promise<Uint8Array>;
  /**
   * `read` of many ranges, of which the next is fetched while one is used. Bytes are valid until the next are
   * asked for. `extents`, in the order of the ranges, tell what of a file they take without a gap.
   */
  readAll<R extends ByteRange>(
    ranges: Iterable<R>,
    extents?: readonly ByteRange[],
  ): AsyncGenerator<{ readonly range: R; readonly bytes: Uint8Array }>;
  /** Closes its files. */
  close(): Promise<void>;
}

/** A range that is being fetched: the blocks from `from` on, those at hand left out. */
interface Fetch<R extends ByteRange> {
  readonly range: R;
  readonly file: ManifestFile;
  /** Where its first block begins. */
  readonly from: number;
  /** Bytes at the front that come from the block at hand. */
  readonly head: number;
  /** Room for all of it; filled from `head` on when `done`. */
  readonly bytes: Uint8Array;
  /** Whether that is the reader's own. */
  readonly own: boolean;
  readonly done: Promise<void>;
}

/** A reader over the files of checkpoint `name`, which `files` lists. */
export function blockReader(
  store: CheckpointStore,
  name: string,
  files: readonly ManifestFile[],
): BlockReader {
  const byName = new Map(files.map((file) => [file.name, file]));
  const sources = openFiles(store, name);
  const kept = new Map<string, Uint8Array>();
  /** Number of the block of each file that will be at hand once the fetches under way are used. */
  const expected = new Map<string, number>();
  const buffers = [new Uint8Array(0), new Uint8Array(0)];
  let turn = 0;

  /** Extents that are not begun yet, the first one last. */
  let ahead: ByteRange[] = [];
  /** Tells of the extent that a fetch begins. */
  const announce = (file: ManifestFile, begin: number): void => {
    const holds = (extent: ByteRange): boolean =>
      extent.file === file.name && extent.begin <= begin && begin < extent.end;
    const found = ahead.findLastIndex(holds);
    if (found < 0) return;
    const extent = ahead[found]!;
    ahead.length = found;
    sources.expect(file.name, begin, Math.min(extent.end, file.length));
  };

  const start = <R extends ByteRange>(range: R): Fetch<R> => {
    const { begin, end } = range;
    const file = byName.get(range.file);
    if (file === undefined || begin < 0 || end > file.length || begin > end) {
      throw new CheckpointError(`checkpoint ${name}: no bytes ${begin} to ${end} of file ${range.file}`);
    }
    if (range.into !== undefined) {
      announce(file, begin);
      const done = sources.readInto(file.name, range.into, begin);
      done.catch(() => undefined);
      return { range, file, from: begin, head: 0, bytes: range.into, own: false, done };
    }
    const firstBlock = Math.floor(begin / file.block);
    const from = firstBlock * file.block;
    const to = begin === end ? from : Math.min(Math.ceil(end / file.block) * file.block, file.length);
    const head = expected.get(file.name) === firstBlock ? Math.min(file.block, to - from) : 0;
    turn = 1 - turn;
    if (buffers[turn]!.length < to - from)
      buffers[turn] = new Uint8Array(Math.ceil((to - from) / BLOCK_BYTES) * BLOCK_BYTES);
    const bytes = buffers[turn]!.subarray(0, to - from);
    if (to > from) {
      expected.delete(file.name);
      expected.set(file.name, Math.floor((to - 1) / file.block));
      if (expected.size > KEPT_FILES) expected.delete(expected.keys().next().value!);
    }
    if (head < bytes.length) announce(file, from + head);
    const done =
      head === bytes.length
        ? Promise.resolve()
        : sources.readInto(file.name, bytes.subarray(head), from + head);
    // Its failure is met when its turn comes.
    done.catch(() => undefined);
    return { range, file, from, head, bytes, own: true, done };
  };

  const finish = async <R extends ByteRange>(fetch: Fetch<R>): Promise<Uint8Array> => {
    const { range, file, from, head, bytes, own } = fetch;
    await fetch.done;
    if (head > 0) bytes.set(kept.get(file.name)!.subarray(0, head));
    for (const block of damagedBlocks(file, bytes.subarray(head), from + head)) {
      throw new CheckpointError(
        `checkpoint ${name}: ${file.name}: block ${block} does not match its checksum`,
      );
    }
    if (own && bytes.length > 0) keepLast(kept, file, bytes, from);
    return bytes.subarray(range.begin - from, range.end - from);
  };

  return {
    async read(file: string, begin: number, end: number): Promise<Uint8Array> {
      return await finish(start({ file, begin, end }));
    },
    async *readAll<R extends ByteRange>(ranges: Iterable<R>, extents: readonly ByteRange[] = []) {
      ahead = extents.toReversed();
      let under: Fetch<R> | undefined;
      try {
        for (const range of ranges) {
          const next = start(range);
          const current = under;
          under = next;
          if (current !== undefined) yield { range: current.range, bytes: await finish(current) };
        }
        const last = under;
        if (last !== undefined) yield { range: last.range, bytes: await finish(last) };
      } finally {
        await under?.done.catch(() => undefined);
      }
    },
    close: () => sources.close(),
  };
}

/** Remembers the last block of what was read. */
function keepLast(kept: Map<string, Uint8Array>, file: ManifestFile, bytes: Uint8Array, from: number): void {
  const last = Math.floor((from + bytes.length - 1) / file.block) * file.block;
  let slot = kept.get(file.name);
  if (slot !== undefined) kept.delete(file.name);
  else if (kept.size >= KEPT_FILES) {
    const [oldest, reused] = kept.entries().next().value!;
    kept.delete(oldest);
    slot = reused;
  }
  slot ??= new Uint8Array(file.block);
  slot.set(bytes.subarray(last - from));
  kept.set(file.name, slot);
}

/** Which blocks of `bytes`, read from `begin` (the start of a block), differ from their checksums. */
export function damagedBlocks(file: ManifestFile, bytes: Uint8Array, begin: number): number[] {
  const damaged: number[] = [];
  for (let at = 0; at < bytes.length; at += file.block) {
    const block = (begin + at) / file.block;
    if (crc32(bytes.subarray(at, at + file.block)) !== file.crc32[block]) damaged.push(block);
  }
  return damaged;
}

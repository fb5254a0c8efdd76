/**
 * Reads zip archives as torch.save writes them: records stored as they are, found by the central directory. Compressed
 * records, comments and anything that two readers could understand differently are refused, so that a small file can
 * never become a large one.
 *
 * Format: APPNOTE.TXT of PKWARE, zip64 included; caffe2/serialize/inline_container.cc of PyTorch.
 *
 * @module
 */
import { crc32 } from "node:zlib";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import type { ByteSource } from "../byte-source.ts";
import {
  CENTRAL,
  END,
  LOCAL,
  UNKNOWN_16,
  UNKNOWN_32,
  ZIP64_END,
  ZIP64_FIELD,
  ZIP64_LOCATOR,
} from "./records.ts";

const MAX_ENTRIES = 100_000;
const MAX_DIRECTORY_BYTES = 1 << 24;

/** A record's bytes in the archive. */
export interface ZipEntry {
  /** First byte of the payload. */
  readonly begin: number;
  readonly end: number;
  readonly crc32: number;
}

/** An archive that is open. */
export interface ZipArchive {
  /** Names of all records, in the directory's order. */
  readonly names: readonly string[];
  /** Where a record lies; `undefined` when there is none. @throws CheckpointError when its header contradicts the directory. */
  find(name: string): Promise<ZipEntry | undefined>;
  /** A whole record of at most `limit` bytes, checked by its CRC. @throws CheckpointError. */
  read(name: string, limit: number): Promise<Uint8Array>;
}

/** A record as the directory tells of it. */
interface Listed {
  readonly name: string;
  readonly size: number;
  readonly crc32: number;
  readonly header: number;
  /** Where the next record or the directory begins. */
  limit: number;
}

/** Opens an archive that fills a source. @throws CheckpointError when it is none that this reader accepts. */
export async function openZip(source: ByteSource): Promise<ZipArchive> {
  const listed = await readDirectory(source);
  const find = async (name: string): Promise<ZipEntry | undefined> => {
    const entry = listed.get(name);
    return entry === undefined ? undefined : locate(source, entry);
  };
  return {
    names: [...listed.keys()],
    find,
    async read(name: string, limit: number): Promise<Uint8Array> {
      const entry = await find(name);
      if (entry === undefined) throw new CheckpointError(`zip: no record ${JSON.stringify(name)}`);
      const length = entry.end - entry.begin;
      if (length > limit) throw new CheckpointError(`zip: ${name} has ${length} bytes, allowed are ${limit}`);
      const bytes = await source.read(entry.begin, entry.end);
      if (crc32(bytes) !== entry.crc32) throw new CheckpointError(`zip: ${name} does not match its checksum`);
      return bytes;
    },
  };
}

/** The payload behind a record's local header. */
async function locate(source: ByteSource, entry: Listed): Promise<ZipEntry> {
  const fail = (problem: string): CheckpointError => new CheckpointError(`zip: ${entry.name}: ${problem}`);
  if (entry.header + LOCAL.bytes > entry.limit) throw fail("its header lies outside");
  const header = viewOf(await source.read(entry.header, entry.header + LOCAL.bytes));
  if (header.getUint32(0, true) !== LOCAL.signature) throw fail("it has no header");
  if (header.getUint16(8, true) !== 0) throw fail("it is compressed");
  const nameBytes = header.getUint16(26, true);
  const nameBegin = entry.header + LOCAL.bytes;
  const begin = nameBegin + nameBytes + header.getUint16(28, true);
  const end = begin + entry.size;
  if (!Number.isSafeInteger(end) || end > entry.limit) throw fail("it lies outside or over another");
  if (decode(await source.read(nameBegin, nameBegin + nameBytes)) !== entry.name)
    throw fail("its header has another name");
  return { begin, end, crc32: entry.crc32 };
}

async function readDirectory(source: ByteSource): Promise<ReadonlyMap<string, Listed>> {
  const { begin, end, count } = await findDirectory(source);
  if (end - begin > MAX_DIRECTORY_BYTES || count > MAX_ENTRIES) {
    throw new CheckpointError(`zip: a directory of ${count} records in ${end - begin} bytes`);
  }
  const view = viewOf(await source.read(begin, end));
  const entries = new Map<string, Listed>();
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + CENTRAL.bytes > view.byteLength || view.getUint32(at, true) !== CENTRAL.signature) {
      throw new CheckpointError(`zip: the directory has no record ${i}`);
    }
    const [nameBytes, extraBytes, commentBytes] = [28, 30, 32].map((offset) =>
      view.getUint16(at + offset, true),
    ) as [number, number, number];
    const next = at + CENTRAL.bytes + nameBytes + extraBytes + commentBytes;
    if (next > view.byteLength) throw new CheckpointError(`zip: record ${i} lies outside the directory`);
    const name = decode(bytesIn(view, at + CENTRAL.bytes, nameBytes));
    const extra = viewOf(bytesIn(view, at + CENTRAL.bytes + nameBytes, extraBytes));
    const entry = readEntry(viewOf(bytesIn(view, at, CENTRAL.bytes)), name, extra, begin);
    if (entries.has(name)) throw new CheckpointError(`zip: the record ${JSON.stringify(name)} comes twice`);
    entries.set(name, entry);
    at = next;
  }
  if (at !== view.byteLength)
    throw new CheckpointError(`zip: ${view.byteLength - at} bytes follow the directory`);
  const ordered = [...entries.values()].sort((a, b) => a.header - b.header);
  for (const [i, entry] of ordered.entries()) {
    entry.limit = ordered[i + 1]?.header ?? begin;
    if (entry.header >= entry.limit)
      throw new CheckpointError(`zip: ${entry.name}: it lies outside or over another`);
  }
  return entries;
}

function readEntry(record: DataView, name: string, extra: DataView, limit: number): Listed {
  const fail = (problem: string): CheckpointError =>
    new CheckpointError(`zip: ${JSON.stringify(name)}: ${problem}`);
  if (record.getUint16(10, true) !== 0) throw fail("it is compressed, stored records are allowed");
  if ((record.getUint16(8, true) & 1) !== 0) throw fail("it is encrypted");
  // What does not fit stands in the zip64 field, in this order.
  const wide = zip64Numbers(extra);
  const number = (offset: number): number => {
    const value = record.getUint32(offset, true);
    if (value !== UNKNOWN_32) return value;
    const exact = wide.shift();
    if (exact === undefined || !Number.isSafeInteger(exact)) throw fail("a size without a value");
    return exact;
  };
  const size = number(24);
  if (number(20) !== size) throw fail("its sizes differ, stored records have one");
  const header = number(42);
  return { name, size, crc32: record.getUint32(16, true), header, limit };
}

/** The 64-bit numbers of a record's zip64 field. */
function zip64Numbers(extra: DataView): number[] {
  for (let at = 0; at + 4 <= extra.byteLength; ) {
    const bytes = extra.getUint16(at + 2, true);
    if (at + 4 + bytes > extra.byteLength) break;
    if (extra.getUint16(at, true) === ZIP64_FIELD) {
      return Array.from({ length: Math.floor(bytes / 8) }, (_, i) =>
        Number(extra.getBigUint64(at + 4 + 8 * i, true)),
      );
    }
    at += 4 + bytes;
  }
  return [];
}

/** Where the directory lies, from the record at the very end and, when there is one, the zip64 record before it. */
async function findDirectory(source: ByteSource): Promise<{ begin: number; end: number; count: number }> {
  const endAt = source.length - END.bytes;
  if (endAt < 0) throw new CheckpointError(`zip: ${source.length} bytes are no archive`);
  const end = viewOf(await source.read(endAt, source.length));
  if (end.getUint32(0, true) !== END.signature || end.getUint16(20, true) !== 0) {
    throw new CheckpointError("zip: it does not end as an archive without comment does");
  }
  let count = end.getUint16(10, true);
  let bytes = end.getUint32(12, true);
  let begin = end.getUint32(16, true);
  let directoryEnd = endAt;
  const wide = await findZip64(source, endAt);
  if (wide !== undefined) {
    const agrees = (small: number, large: number, unknown: number): boolean =>
      small === large || small === unknown;
    if (
      !agrees(count, wide.count, UNKNOWN_16) ||
      !agrees(bytes, wide.bytes, UNKNOWN_32) ||
      !agrees(begin, wide.begin, UNKNOWN_32)
    ) {
      throw new CheckpointError("zip: its two end records contradict each other");
    }
    ({ count, bytes, begin } = wide);
    directoryEnd = wide.at;
  }
  if (begin + bytes !== directoryEnd)
    throw new CheckpointError("zip: the directory does not end where its end record begins");
  return { begin, end: directoryEnd, count };
}

async function findZip64(
  source: ByteSource,
  endAt: number,
): Promise<{ at: number; begin: number; bytes: number; count: number } | undefined> {
  const locatorAt = endAt - ZIP64_LOCATOR.bytes;
  if (locatorAt < ZIP64_END.bytes) return undefined;
  const locator = viewOf(await source.read(locatorAt, endAt));
  if (locator.getUint32(0, true) !== ZIP64_LOCATOR.signature) return undefined;
  const at = Number(locator.getBigUint64(8, true));
  if (at !== locatorAt - ZIP64_END.bytes)
    throw new CheckpointError("zip: its zip64 end record is not before its locator");
  const record = viewOf(await source.read(at, locatorAt));
  if (record.getUint32(0, true) !== ZIP64_END.signature)
    throw new CheckpointError("zip: it has no zip64 end record");
  const [count, bytes, begin] = [32, 40, 48].map((offset) => Number(record.getBigUint64(offset, true))) as [
    number,
    number,
    number,
  ];
  return { at, begin, bytes, count };
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function bytesIn(view: DataView, begin: number, length: number): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset + begin, length);
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new CheckpointError("zip: a name that is not valid UTF-8", { cause: error });
  }
}

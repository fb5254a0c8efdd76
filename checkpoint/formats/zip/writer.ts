/**
 * Writes zip archives byte for byte as torch.save does: records stored as they are, payloads at multiples of 64 bytes from
 * the archive's start, lengths and checksums behind each payload, a zip64 end record always.
 *
 * Follows caffe2/serialize/inline_container.cc of PyTorch (`PyTorchStreamWriter`, and miniz below it).
 *
 * @module
 */
import { crc32 } from "node:zlib";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { CENTRAL, DESCRIPTOR, END, LOCAL, ZIP64_END, ZIP64_LOCATOR } from "./records.ts";

const ALIGNMENT = 64;
/** What 32 bits can address, with room for the directory: more is for its caller to cut. */
const MAX_BYTES = 2 ** 32 - 2 ** 20;
/** Names in UTF-8; lengths behind the payload, which an empty one does not need. */
const FLAGS = 0x0808;
const FLAGS_EMPTY = 0x0800;

/** Takes an archive's bytes in order; they may be reused when it resolves. */
export type Append = (bytes: Uint8Array) => Promise<void>;

/** An archive being written. */
export interface ZipWriter {
  /** Adds a record. @throws CheckpointError when the archive would have 4 GiB or more. */
  add(name: string, payload: Uint8Array): Promise<void>;
  /** Writes the directory; nothing may follow. @returns bytes of the whole archive. */
  finish(): Promise<number>;
}

interface Written {
  readonly name: Uint8Array;
  readonly header: number;
  readonly size: number;
  readonly crc32: number;
}

/** Starts an archive. */
export function zipWriter(append: Append): ZipWriter {
  const written: Written[] = [];
  let at = 0;
  const put = async (bytes: Uint8Array): Promise<void> => {
    await append(bytes);
    at += bytes.length;
  };
  return {
    async add(name: string, payload: Uint8Array): Promise<void> {
      if (at + payload.length > MAX_BYTES) {
        throw new CheckpointError(`zip: ${at + payload.length} bytes, allowed are ${MAX_BYTES}`);
      }
      const record = {
        name: new TextEncoder().encode(name),
        header: at,
        size: payload.length,
        crc32: crc32(payload),
      };
      await put(localHeader(record));
      await put(payload);
      if (record.size > 0) await put(descriptor(record));
      written.push(record);
    },
    async finish(): Promise<number> {
      const begin = at;
      for (const record of written) await put(centralRecord(record));
      await put(endRecords(begin, at - begin, written.length));
      return at;
    },
  };
}

/** A header without lengths, padded so that the payload is aligned: an extra field `FB` full of `Z`. */
function localHeader({ name, header, size }: Written): Uint8Array {
  const field = LOCAL.bytes + name.length;
  const padding = (ALIGNMENT - ((header + field + 4) % ALIGNMENT)) % ALIGNMENT;
  const bytes = new Uint8Array(field + 4 + padding);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, LOCAL.signature, true);
  view.setUint16(6, size === 0 ? FLAGS_EMPTY : FLAGS, true);
  view.setUint16(26, name.length, true);
  view.setUint16(28, 4 + padding, true);
  bytes.set(name, LOCAL.bytes);
  bytes.set([0x46, 0x42], field);
  view.setUint16(field + 2, padding, true);
  bytes.fill(0x5a, field + 4);
  return bytes;
}

function descriptor({ size, crc32 }: Written): Uint8Array {
  const bytes = new Uint8Array(DESCRIPTOR.bytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, DESCRIPTOR.signature, true);
  view.setUint32(4, crc32, true);
  view.setUint32(8, size, true);
  view.setUint32(12, size, true);
  return bytes;
}

function centralRecord({ name, header, size, crc32 }: Written): Uint8Array {
  const bytes = new Uint8Array(CENTRAL.bytes + name.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, CENTRAL.signature, true);
  view.setUint16(8, size === 0 ? FLAGS_EMPTY : FLAGS, true);
  view.setUint32(16, crc32, true);
  view.setUint32(20, size, true);
  view.setUint32(24, size, true);
  view.setUint16(28, name.length, true);
  view.setUint32(42, header, true);
  bytes.set(name, CENTRAL.bytes);
  return bytes;
}

/** The three records behind the directory. */
function endRecords(begin: number, length: number, count: number): Uint8Array {
  const bytes = new Uint8Array(ZIP64_END.bytes + ZIP64_LOCATOR.bytes + END.bytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, ZIP64_END.signature, true);
  view.setBigUint64(4, BigInt(ZIP64_END.bytes - 12), true);
  // Made by zip 3.0 on Unix, readable by zip 4.5: as miniz says of itself.
  view.setUint16(12, 0x031e, true);
  view.setUint16(14, 0x002d, true);
  view.setBigUint64(24, BigInt(count), true);
  view.setBigUint64(32, BigInt(count), true);
  view.setBigUint64(40, BigInt(length), true);
  view.setBigUint64(48, BigInt(begin), true);
  const locator = ZIP64_END.bytes;
  view.setUint32(locator, ZIP64_LOCATOR.signature, true);
  view.setBigUint64(locator + 8, BigInt(begin + length), true);
  view.setUint32(locator + 16, 1, true);
  const end = locator + ZIP64_LOCATOR.bytes;
  view.setUint32(end, END.signature, true);
  view.setUint16(end + 8, count, true);
  view.setUint16(end + 10, count, true);
  view.setUint32(end + 12, length, true);
  view.setUint32(end + 16, begin, true);
  return bytes;
}

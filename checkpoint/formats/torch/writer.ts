/**
 * Writes what torch.load reads: the records, and the order of records, that torch.save gives.
 *
 * @module
 */
import { crc32 } from "node:zlib";
import { sha256Hex } from "../../digest.ts";
import type { PickleValue } from "../pickle/values.ts";
import { writePickle } from "../pickle/writer.ts";
import { type Append, zipWriter } from "../zip/writer.ts";

/**
 * Writes a value, and the storage `0` that it refers to, if any.
 *
 * @returns bytes written
 */
export async function writeTorchFile(
  append: Append,
  value: PickleValue,
  storage?: Uint8Array,
): Promise<number> {
  const zip = zipWriter(append);
  const text = new TextEncoder();
  const pickle = writePickle(value);
  await zip.add("archive/data.pkl", pickle);
  await zip.add("archive/.format_version", text.encode("1"));
  await zip.add("archive/.storage_alignment", text.encode("64"));
  await zip.add("archive/byteorder", text.encode("little"));
  if (storage !== undefined) await zip.add("archive/data/0", storage);
  await zip.add("archive/version", text.encode("3\n"));
  await zip.add("archive/.data/serialization_id", text.encode(serializationId(pickle, storage)));
  return zip.finish();
}

/** Forty digits that depend on the content, as torch's do. */
function serializationId(pickle: Uint8Array, storage: Uint8Array | undefined): string {
  const content = `${sha256Hex(pickle)} ${storage === undefined ? "" : crc32(storage)}`;
  return String(BigInt(`0x${sha256Hex(content)}`) % 10n ** 40n).padStart(40, "0");
}

/**
 * `model.safetensors.index.json`: which file of a sharded model holds which tensor. Read strictly: a name that comes twice
 * or a file outside the index's own folder is refused.
 *
 * Format: huggingface_hub/serialization/_base.py, transformers/utils/hub.py.
 *
 * @module
 */
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { type JsonCursor, skipValue, takeEnd, takeObject, takeString } from "./json.ts";

/** Largest index file, in bytes. */
export const MAX_INDEX_BYTES: number = 64 * 1024 * 1024;

/** Files that one index may name. */
const MAX_FILES = 10_000;

/**
 * Parses an index.
 *
 * @returns the file of every tensor, in the index's order.
 * @throws CheckpointError that says what is wrong.
 */
export function parseIndex(bytes: Uint8Array): ReadonlyMap<string, string> {
  const places = new Map<string, string>();
  let seen = false;
  const cursor: JsonCursor = { text: decode(bytes), at: 0 };
  takeObject(cursor, (name) => {
    if (name !== "weight_map") {
      skipValue(cursor);
      return;
    }
    seen = true;
    takeObject(cursor, (tensor) => {
      if (tensor === "") throw new CheckpointError("a tensor's name is empty");
      places.set(tensor, checkFileName(takeString(cursor)));
    });
  });
  takeEnd(cursor);
  if (!seen) throw new CheckpointError('it has no "weight_map"');
  const files = new Set(places.values()).size;
  if (files > MAX_FILES) throw new CheckpointError(`it names ${files} files, allowed are ${MAX_FILES}`);
  return places;
}

/** The text of an index. `places` gives the file of every tensor. */
export function formatIndex(
  places: ReadonlyMap<string, string>,
  totals: { readonly bytes: number; readonly elements: number },
): string {
  const entries = [...places].sort(([a], [b]) => (a < b ? -1 : 1));
  const lines = entries.map(([name, file]) => `    ${JSON.stringify(name)}: ${JSON.stringify(file)}`);
  const metadata = `    "total_parameters": ${totals.elements},\n    "total_size": ${totals.bytes}`;
  return `{\n  "metadata": {\n${metadata}\n  },\n  "weight_map": {\n${lines.join(",\n")}\n  }\n}\n`;
}

/** Name of a shard: 1-based, as Hugging Face writes it. */
export function shardName(stem: string, index: number, count: number): string {
  const digits = (value: number): string => String(value).padStart(5, "0");
  return `${stem}-${digits(index + 1)}-of-${digits(count)}.safetensors`;
}

/** A plain `.safetensors` file name on any host: no separator, drive, device, leading dot or control character. */
function checkFileName(name: string): string {
  const plain =
    name.length <= 255 &&
    name.endsWith(".safetensors") &&
    !/^\.|[/\\:*?"<>|]|\p{Cc}/u.test(name) &&
    !/^(con|prn|aux|nul|com\d|lpt\d)\./i.test(name);
  if (plain) return name;
  const given = JSON.stringify(name.slice(0, 140));
  throw new CheckpointError(`file ${given}, allowed are .safetensors files beside the index`);
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new CheckpointError("it is not valid UTF-8", { cause: error });
  }
}

/**
 * MessagePack for manifests: one canonical encoding of a value (sorted keys, smallest heads), and a decoder that
 * accepts plain data only. Maps become objects with own properties, whatever their keys are called.
 *
 * @module
 */
import { Packr } from "msgpackr";
import { CheckpointError } from "../core/contracts/errors.ts";
import { scanMsgpack } from "./msgpack-scan.ts";

/** What manifests are made of. */
export type Plain =
  | null
  | boolean
  | number
  | string
  | Uint8Array
  | readonly Plain[]
  | { readonly [key: string]: Plain };

const packr = new Packr({
  useRecords: false,
  mapsAsObjects: false,
  variableMapSize: true,
  int64AsType: "bigint",
  copyBuffers: true,
});

/**
 * Encodes a value. Equal values give equal bytes, whatever the order of their keys.
 *
 * @throws CheckpointError for what has no faithful encoding: lone surrogates, objects that are not plain, cycles.
 */
export function encodeMsgpack(value: Plain): Uint8Array {
  const bytes = packr.pack(sorted(value, 0));
  return new Uint8Array(bytes);
}

/** Decodes a value. @throws CheckpointError unless the bytes are exactly one value of plain data. */
export function decodeMsgpack(bytes: Uint8Array): Plain {
  scanMsgpack(bytes);
  return unmapped(packr.unpack(bytes));
}

/** Maps with sorted keys, which msgpackr writes in order and without regard to prototypes. */
function sorted(value: unknown, depth: number): unknown {
  if (depth > 30) throw new CheckpointError("msgpack: a value is nested too deeply or contains itself");
  if (value === null || typeof value === "boolean" || value instanceof Uint8Array) return value;
  if (typeof value === "string") return wellFormed(value);
  // msgpackr writes -0 as 0, as JSON does.
  if (typeof value === "number") return value;
  if (Array.isArray(value)) return value.map((item) => sorted(item, depth + 1));
  if (typeof value !== "object") return refuse(typeof value);
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return refuse("an object that is not plain");
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return new Map(entries.map(([key, item]) => [wellFormed(key), sorted(item, depth + 1)]));
}

function wellFormed(text: string): string {
  return text.isWellFormed() ? text : refuse("a string with a lone surrogate");
}

function refuse(what: string): never {
  throw new CheckpointError(
    `msgpack: ${what} cannot be written, allowed are null, booleans, numbers, strings, lists, objects`,
  );
}

function unmapped(value: unknown): Plain {
  if (value instanceof Map) {
    // `fromEntries` defines properties, so a key `__proto__` is a key like any other.
    for (const [key, item] of value)
      if (typeof item === "object" || typeof item === "bigint") value.set(key, unmapped(item));
    return Object.fromEntries(value) as { readonly [key: string]: Plain };
  }
  if (Array.isArray(value)) return value.map(unmapped);
  if (value instanceof Uint8Array) return new Uint8Array(value);
  if (typeof value === "bigint") {
    const number = Number(value);
    if (!Number.isSafeInteger(number))
      throw new CheckpointError(`msgpack: integer ${value} exceeds 2^53 - 1`);
    return number;
  }
  return value as null | boolean | number | string;
}

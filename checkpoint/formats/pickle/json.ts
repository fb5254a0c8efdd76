/**
 * Pickled values as JSON values and back. What JSON has no words for becomes an object with one key that begins with `$`:
 * `{"$float": "nan"}`, `{"$int": "..."}` beyond 2^53, `{"$bytes": "<base64>"}`. Tuples become arrays, keys become text.
 *
 * @module
 */

import type { Value } from "../../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { dict, kindOf, type PickleValue } from "./values.ts";

const MAX_DEPTH = 64;
/** Values in all: what is shared inside a pickle is spelled out here. */
const MAX_VALUES = 1_000_000;

/** @throws CheckpointError for what is no data, and for values that are too deep or too many. */
export function toJson(value: PickleValue): Value {
  let left = MAX_VALUES;
  const convert = (value: PickleValue, depth: number): Value => {
    left -= 1;
    if (left < 0 || depth > MAX_DEPTH) throw new CheckpointError("a value that is too large or too deep");
    if (value === null || typeof value === "boolean" || typeof value === "string") return value;
    if (typeof value === "number") return value;
    if (typeof value === "bigint") return { $int: String(value) };
    if (value instanceof Uint8Array) return { $bytes: value.toBase64() };
    if (Array.isArray(value)) return value.map((item) => convert(item, depth + 1));
    switch (value.kind) {
      case "float":
        return Number.isFinite(value.value) ? value.value : { $float: String(value.value).toLowerCase() };
      case "tuple":
        return value.items.map((item) => convert(item, depth + 1));
      case "dict": {
        const members = value.entries.map(([key, item]) => [keyText(key), convert(item, depth + 1)] as const);
        if (new Set(members.map(([key]) => key)).size !== members.length) {
          throw new CheckpointError("a dict with a key that comes twice");
        }
        return Object.fromEntries(members);
      }
      case "call":
        if (value.callee === "_codecs encode") return { $bytes: latin1(value.args).toBase64() };
        throw new CheckpointError(`a ${kindOf(value)}, which is no plain data`);
      default:
        throw new CheckpointError(`a ${kindOf(value)}, which is no plain data`);
    }
  };
  return convert(value, 0);
}

/** Whole numbers become integers: JSON does not tell `1.0` from `1`. @throws CheckpointError for values that are too deep. */
export function fromJson(value: Value, depth = 0): PickleValue {
  if (depth > MAX_DEPTH) throw new CheckpointError("a value that is too deep");
  if (value === null || typeof value === "boolean" || typeof value === "string") return value;
  if (typeof value === "number") {
    return Number.isSafeInteger(value) && !Object.is(value, -0) ? value : { kind: "float", value };
  }
  if (Array.isArray(value)) return value.map((item) => fromJson(item, depth + 1));
  const entries = Object.entries(value as { readonly [key: string]: Value });
  const [key, text] = entries.length === 1 ? entries[0]! : ["", undefined];
  if (typeof text === "string") {
    if (key === "$int" && /^-?\d{1,500}$/.test(text)) return BigInt(text);
    if (key === "$bytes") return decodeBase64(text);
    if (key === "$float") return { kind: "float", value: SPECIAL[text] ?? Number.NaN };
  }
  return dict(entries.map(([name, item]) => [name, fromJson(item, depth + 1)] as const));
}

const SPECIAL: Readonly<Record<string, number>> = {
  infinity: Number.POSITIVE_INFINITY,
  "-infinity": Number.NEGATIVE_INFINITY,
};

function decodeBase64(text: string): Uint8Array {
  try {
    return Uint8Array.fromBase64(text);
  } catch (error) {
    throw new CheckpointError("bytes that are not base64", { cause: error });
  }
}

function keyText(key: PickleValue): string {
  if (typeof key === "string") return key;
  if (typeof key === "number" || typeof key === "bigint" || typeof key === "boolean") return String(key);
  throw new CheckpointError(`a dict with a ${kindOf(key)} as key`);
}

/** What protocol 2 writes for bytes. */
function latin1(args: readonly PickleValue[]): Uint8Array {
  const [text, encoding] = args;
  if (args.length !== 2 || typeof text !== "string" || encoding !== "latin1") {
    throw new CheckpointError("bytes in an unknown encoding");
  }
  return Uint8Array.from(text, (char) => {
    const code = char.codePointAt(0)!;
    if (code > 0xff) throw new CheckpointError("bytes beyond 255");
    return code;
  });
}

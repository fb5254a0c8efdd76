/**
 * A structural check of MessagePack bytes before msgpackr decodes them. msgpackr keeps the last of duplicate keys,
 * replaces invalid UTF-8, turns the reserved byte 0xC1 into an object and always honours extension types; none of that
 * may reach a manifest. One pass, no recursion, nothing allocated by a length that the input claims.
 *
 * Format: https://github.com/msgpack/msgpack/blob/master/spec.md.
 *
 * @module
 */
import { CheckpointError } from "../core/contracts/errors.ts";

/** Bounds of what is accepted. */
const MAX_DEPTH = 32;
const MAX_NODES = 1 << 24;
const MAX_STRING_BYTES = 1 << 24;
/** Up to so many keys are compared one by one, which needs no text made of them. */
const FEW_KEYS = 16;

/** The keys of a map: where the first few begin and how long they are, then all of them as text. */
interface Keys {
  readonly places: number[];
  texts: Set<string> | undefined;
}

/** An array or map being read. */
interface Frame {
  /** Values (and, in a map, keys) still to come. */
  left: number;
  /** The keys so far; `undefined` for an array. */
  readonly keys: Keys | undefined;
  /** In a map, whether a key comes next. */
  key: boolean;
}

/**
 * Checks that the bytes are exactly one value of plain MessagePack: nil, booleans, numbers, valid UTF-8 strings, binary,
 * arrays, and maps whose keys are distinct strings.
 *
 * @throws CheckpointError that names the byte and the problem.
 */
export function scanMsgpack(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const stack: Frame[] = [{ left: 1, keys: undefined, key: false }];
  let at = 0;
  let nodes = 0;

  const fail = (problem: string): CheckpointError => new CheckpointError(`msgpack: byte ${at}: ${problem}`);
  const need = (count: number): void => {
    if (count > bytes.length - at) throw fail(`${count} more bytes are due, ${bytes.length - at} are left`);
  };
  /** A big-endian length of 1, 2 or 4 bytes behind the tag. */
  const length = (width: number): number => {
    need(1 + width);
    const value =
      width === 1 ? view.getUint8(at + 1) : width === 2 ? view.getUint16(at + 1) : view.getUint32(at + 1);
    at += 1 + width;
    return value;
  };
  const skip = (count: number): void => {
    need(count);
    at += count;
  };
  /** Checks a string and steps over it; returns its length. */
  const text = (count: number): number => {
    if (count > MAX_STRING_BYTES) throw fail(`a string of ${count} bytes, allowed are ${MAX_STRING_BYTES}`);
    need(count);
    if (!isAscii(bytes, at, count)) decode(at, count);
    at += count;
    return count;
  };
  const decode = (from: number, count: number): string => {
    try {
      return utf8.decode(bytes.subarray(from, from + count));
    } catch {
      throw fail("a string that is not valid UTF-8");
    }
  };
  /** Notes the key of `count` bytes that ends here. @throws CheckpointError when the map has it already. */
  const note = (keys: Keys, count: number): void => {
    const from = at - count;
    const { places } = keys;
    if (places.length < 2 * FEW_KEYS) {
      for (let i = 0; i < places.length; i += 2) {
        if (places[i + 1] === count && sameBytes(bytes, places[i]!, from, count))
          throw duplicate(from, count);
      }
      places.push(from, count);
      return;
    }
    if (keys.texts === undefined) {
      keys.texts = new Set();
      for (let i = 0; i < places.length; i += 2) keys.texts.add(decode(places[i]!, places[i + 1]!));
    }
    const key = decode(from, count);
    if (keys.texts.has(key)) throw duplicate(from, count);
    keys.texts.add(key);
  };
  const duplicate = (from: number, count: number): CheckpointError =>
    fail(`duplicate key ${JSON.stringify(decode(from, count))}`);
  const push = (count: number, map: boolean): void => {
    if (stack.length > MAX_DEPTH) throw fail(`nesting deeper than ${MAX_DEPTH}`);
    // Every element takes a byte at least: a claim beyond that is refused before anything is done for it.
    need(map ? 2 * count : count);
    stack.push({
      left: map ? 2 * count : count,
      keys: map ? { places: [], texts: undefined } : undefined,
      key: map,
    });
  };
  /** Reads one value's head and body; returns its length in bytes when it is a string. */
  const value = (): number | undefined => {
    need(1);
    const tag = bytes[at]!;
    if (tag <= 0x7f || tag >= 0xe0 || tag === 0xc0 || tag === 0xc2 || tag === 0xc3)
      return skip(1) as undefined;
    if (tag <= 0x9f || (tag >= 0xdc && tag <= 0xdf)) {
      const map = tag <= 0x8f || tag >= 0xde;
      const count = tag <= 0x9f ? tag & 0x0f : length(tag % 2 === 0 ? 2 : 4);
      if (tag <= 0x9f) at += 1;
      return push(count, map) as undefined;
    }
    if (tag <= 0xbf) {
      at += 1;
      return text(tag & 0x1f);
    }
    if (tag >= 0xc4 && tag <= 0xc6) return skip(length(1 << (tag - 0xc4))) as undefined;
    if (tag >= 0xca && tag <= 0xd3) return skip(1 + NUMBER_BYTES[tag - 0xca]!) as undefined;
    if (tag >= 0xd9 && tag <= 0xdb) return text(length(1 << (tag - 0xd9)));
    throw fail(`type 0x${tag.toString(16)} is not allowed`);
  };

  for (;;) {
    const frame = stack.at(-1);
    if (frame === undefined) break;
    if (frame.left === 0) {
      stack.pop();
      continue;
    }
    frame.left -= 1;
    nodes += 1;
    if (nodes > MAX_NODES) throw fail(`more than ${MAX_NODES} values`);
    const count = value();
    if (frame.keys === undefined) continue;
    if (frame.key) {
      if (count === undefined) throw fail("a key that is not a string");
      note(frame.keys, count);
    }
    frame.key = !frame.key;
  }
  if (at !== bytes.length) throw fail(`${bytes.length - at} bytes after the value`);
}

/** Bytes behind the tags 0xCA (float 32) to 0xD3 (int 64). */
const NUMBER_BYTES: readonly number[] = [4, 8, 1, 2, 4, 8, 1, 2, 4, 8];

function isAscii(bytes: Uint8Array, from: number, count: number): boolean {
  for (let i = from; i < from + count; i++) if (bytes[i]! > 0x7f) return false;
  return true;
}

function sameBytes(bytes: Uint8Array, a: number, b: number, count: number): boolean {
  for (let i = 0; i < count; i++) if (bytes[a + i] !== bytes[b + i]) return false;
  return true;
}

/**
 * A tokenizer for the JSON of a safetensors header. `JSON.parse` will not do: it drops duplicate keys, turns `2.0` into
 * 2 and rounds integers above 2^53. The header's grammar is fixed and flat, so its parser asks for what must come next,
 * and nesting cannot run away.
 *
 * @module
 */
import { CheckpointError } from "../../../core/contracts/errors.ts";

const ESCAPES: ReadonlyMap<string, string> = new Map([
  ['"', '"'],
  ["\\", "\\"],
  ["/", "/"],
  ["b", "\b"],
  ["f", "\f"],
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
]);

/** Numbers, and the three words. */
const PLAIN = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null/y;

/** How deep skipped values may nest. */
const MAX_DEPTH = 32;

/** A position in a text. */
export interface JsonCursor {
  readonly text: string;
  at: number;
}

/** The error for what stands at the cursor. */
export function unexpected(cursor: JsonCursor, wanted: string): CheckpointError {
  const found = cursor.at < cursor.text.length ? JSON.stringify(cursor.text[cursor.at]) : "its end";
  return new CheckpointError(`character ${cursor.at}: ${found} where ${wanted} must come`);
}

function skipSpace(cursor: JsonCursor): void {
  while (cursor.at < cursor.text.length && " \t\n\r".includes(cursor.text[cursor.at]!)) cursor.at++;
}

/** Takes one punctuation character, with white space before it. @throws CheckpointError when another comes. */
function takeMark(cursor: JsonCursor, mark: string): void {
  if (!tryMark(cursor, mark)) throw unexpected(cursor, `"${mark}"`);
}

function tryMark(cursor: JsonCursor, mark: string): boolean {
  skipSpace(cursor);
  if (cursor.text[cursor.at] !== mark) return false;
  cursor.at++;
  return true;
}

/** Takes a string. @throws CheckpointError for control characters, unknown escapes and lone surrogates. */
export function takeString(cursor: JsonCursor): string {
  takeMark(cursor, '"');
  const { text } = cursor;
  let value = "";
  let plain = cursor.at;
  for (;;) {
    const char = text[cursor.at];
    if (char === undefined || char < " ") throw unexpected(cursor, "the rest of a string");
    if (char === '"') break;
    if (char !== "\\") {
      cursor.at++;
      continue;
    }
    value += text.slice(plain, cursor.at);
    cursor.at++;
    value += takeEscape(cursor);
    plain = cursor.at;
  }
  value += text.slice(plain, cursor.at);
  if (!value.isWellFormed()) {
    throw new CheckpointError(`character ${cursor.at}: the string before it has a lone surrogate`);
  }
  cursor.at++;
  return value;
}

function takeEscape(cursor: JsonCursor): string {
  const kind = cursor.text[cursor.at] ?? "";
  const simple = ESCAPES.get(kind);
  if (simple !== undefined) {
    cursor.at++;
    return simple;
  }
  const digits = cursor.text.slice(cursor.at + 1, cursor.at + 5);
  if (kind !== "u" || !/^[0-9a-fA-F]{4}$/.test(digits)) throw unexpected(cursor, "an escape");
  cursor.at += 5;
  return String.fromCharCode(Number.parseInt(digits, 16));
}

/** Takes a non-negative integer, written plainly: `2`, not `2.0`, `2e0`, `02` or `-0`. @throws CheckpointError also above 2^53 - 1. */
function takeInteger(cursor: JsonCursor): number {
  skipSpace(cursor);
  const begin = cursor.at;
  while (/[0-9]/.test(cursor.text[cursor.at] ?? "")) cursor.at++;
  const digits = cursor.text.slice(begin, cursor.at);
  if (/[.eE+-]/.test(cursor.text[cursor.at] ?? "") || !/^(0|[1-9][0-9]*)$/.test(digits)) {
    throw unexpected(cursor, "a non-negative integer");
  }
  if (digits.length > 16 || !Number.isSafeInteger(Number(digits))) {
    throw new CheckpointError(`character ${begin}: ${digits.slice(0, 24)} exceeds 2^53 - 1`);
  }
  return Number(digits);
}

/** Takes an array of integers. */
export function takeIntegers(cursor: JsonCursor): number[] {
  const values: number[] = [];
  takeMark(cursor, "[");
  if (tryMark(cursor, "]")) return values;
  do values.push(takeInteger(cursor));
  while (tryMark(cursor, ","));
  takeMark(cursor, "]");
  return values;
}

/** Nothing but white space may follow. @throws CheckpointError when something does. */
export function takeEnd(cursor: JsonCursor): void {
  skipSpace(cursor);
  if (cursor.at < cursor.text.length) throw unexpected(cursor, "nothing more");
}

/** Passes over a value of any kind. @throws CheckpointError when it is no JSON or nests deeper than 32. */
export function skipValue(cursor: JsonCursor, depth = 0): void {
  if (depth > MAX_DEPTH)
    throw new CheckpointError(`character ${cursor.at}: nesting deeper than ${MAX_DEPTH}`);
  skipSpace(cursor);
  const first = cursor.text[cursor.at];
  if (first === "{") takeObject(cursor, () => skipValue(cursor, depth + 1));
  else if (first === '"') takeString(cursor);
  else if (first === "[") {
    cursor.at++;
    if (tryMark(cursor, "]")) return;
    do skipValue(cursor, depth + 1);
    while (tryMark(cursor, ","));
    takeMark(cursor, "]");
  } else {
    PLAIN.lastIndex = cursor.at;
    const word = PLAIN.exec(cursor.text)?.[0];
    if (word === undefined) throw unexpected(cursor, "a value");
    cursor.at += word.length;
  }
}

/** Takes an object; `member` takes each value. @throws CheckpointError when a name comes twice. */
export function takeObject(cursor: JsonCursor, member: (name: string) => void): void {
  const names = new Set<string>();
  takeMark(cursor, "{");
  if (tryMark(cursor, "}")) return;
  do {
    const name = takeString(cursor);
    if (names.has(name))
      throw new CheckpointError(`character ${cursor.at}: duplicate name ${JSON.stringify(name)}`);
    names.add(name);
    takeMark(cursor, ":");
    member(name);
  } while (tryMark(cursor, ","));
  takeMark(cursor, "}");
}

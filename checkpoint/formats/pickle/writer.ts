/**
 * A writer of Python pickles, protocol 2, which every Python reads and torch's restricted loader accepts. What repeats
 * (names, texts) is written once and referred to after that, as Python does with objects that are the same.
 *
 * Opcodes and their order follow Lib/pickle.py of CPython, so that equal values give the bytes that torch.save gives.
 *
 * @module
 */
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { kindOf, type PickleValue } from "./values.ts";

/** Values between two marks. */
const BATCH = 1000;
const MAX_DEPTH = 100;

/** Encodes a value. @throws CheckpointError for nesting deeper than 100 and integers of more than 255 bytes. */
export function writePickle(value: PickleValue): Uint8Array {
  const writer = new PickleWriter();
  writer.opcode("\x80", 2);
  writer.save(value, 0);
  writer.opcode(".");
  return writer.finish();
}

class PickleWriter {
  #bytes: Uint8Array = new Uint8Array(1024);
  #length = 0;
  #memoized = 0;
  /** Memo index of each text and global written so far. */
  readonly #memo = new Map<string, number>();

  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  save(value: PickleValue, depth: number): void {
    if (depth > MAX_DEPTH) throw new CheckpointError(`pickle: nesting deeper than ${MAX_DEPTH}`);
    if (value === null) this.opcode("N");
    else if (value === true) this.opcode("\x88");
    else if (value === false) this.opcode("\x89");
    else if (typeof value === "number" || typeof value === "bigint") this.#integer(value);
    else if (typeof value === "string") this.#text(value);
    else if (value instanceof Uint8Array) this.#saveBytes(value, depth);
    else if (Array.isArray(value)) this.#list(value, depth);
    else this.#tagged(value, depth);
  }

  opcode(code: string, ...bytes: readonly number[]): void {
    this.#reserve(1 + bytes.length);
    this.#bytes[this.#length++] = code.charCodeAt(0);
    for (const byte of bytes) this.#bytes[this.#length++] = byte;
  }

  #tagged(value: Extract<PickleValue, { readonly kind: string }>, depth: number): void {
    switch (value.kind) {
      case "float":
        this.#float(value.value);
        break;
      case "tuple":
        this.#tuple(value.items, depth);
        break;
      case "dict":
        this.#dict(value.entries, depth);
        break;
      case "global":
        this.#global(value.name);
        break;
      case "persistent":
        this.save(value.id, depth + 1);
        this.opcode("Q");
        break;
      case "call":
        this.#global(value.callee);
        this.#tuple(value.args, depth);
        this.opcode("R");
        this.#memoize();
        break;
      case "object":
        this.#global(value.type);
        this.#tuple([], depth);
        this.opcode("\x81");
        this.#memoize();
        if (value.state === undefined) break;
        this.save(value.state, depth + 1);
        this.opcode("b");
    }
  }

  #integer(value: number | bigint): void {
    if (typeof value === "number" && !Number.isSafeInteger(value)) {
      throw new CheckpointError(`pickle: ${value} is no integer; floats are told apart`);
    }
    const wide = BigInt(value);
    if (wide >= 0n && wide < 0x100n) this.opcode("K", Number(wide));
    else if (wide >= 0n && wide < 0x10000n) this.opcode("M", Number(wide & 0xffn), Number(wide >> 8n));
    else if (BigInt.asIntN(32, wide) === wide) this.#counted("J", Number(wide));
    else this.#long(wide);
  }

  #long(value: bigint): void {
    const bytes: number[] = [];
    // Two's complement, as short as its sign allows.
    for (let rest = value; ; rest >>= 8n) {
      bytes.push(Number(rest & 0xffn));
      const sign = BigInt.asIntN(8, rest);
      if (rest >> 7n === (sign < 0n ? -1n : 0n)) break;
    }
    if (bytes.length > 255) throw new CheckpointError(`pickle: an integer of ${bytes.length} bytes`);
    this.opcode("\x8a", bytes.length, ...bytes);
  }

  #float(value: number): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setFloat64(0, value, false);
    this.opcode("G", ...bytes);
  }

  #text(text: string): void {
    if (!text.isWellFormed())
      throw new CheckpointError(`pickle: ${JSON.stringify(text)} has a lone surrogate`);
    if (this.#recall(`text ${text}`)) return;
    const bytes = new TextEncoder().encode(text);
    this.#counted("X", bytes.length);
    this.#append(bytes);
    this.#memoize(`text ${text}`);
  }

  /** Protocol 2 has no bytes: Python writes them as text whose characters are the bytes, to be encoded. */
  #saveBytes(value: Uint8Array, depth: number): void {
    const text = Array.from(value, (byte) => String.fromCharCode(byte)).join("");
    this.save({ kind: "call", callee: "_codecs encode", args: [text, "latin1"] }, depth);
  }

  #list(items: readonly PickleValue[], depth: number): void {
    this.opcode("]");
    this.#memoize();
    this.#batches(items, "a", "e", (item) => this.save(item, depth + 1));
  }

  #dict(entries: readonly (readonly [PickleValue, PickleValue])[], depth: number): void {
    this.opcode("}");
    this.#memoize();
    this.#batches(entries, "s", "u", ([key, value]) => {
      this.save(key, depth + 1);
      this.save(value, depth + 1);
    });
  }

  /** Items one by one or, when there are several, between marks. */
  #batches<T>(items: readonly T[], single: string, several: string, save: (item: T) => void): void {
    for (let at = 0; at < items.length; at += BATCH) {
      const batch = items.slice(at, at + BATCH);
      if (batch.length > 1) this.opcode("(");
      for (const item of batch) save(item);
      this.opcode(batch.length > 1 ? several : single);
    }
  }

  #tuple(items: readonly PickleValue[], depth: number): void {
    if (items.length === 0) {
      this.opcode(")");
      return;
    }
    if (items.length > 3) this.opcode("(");
    for (const item of items) this.save(item, depth + 1);
    this.opcode(items.length > 3 ? "t" : String.fromCharCode(0x84 + items.length));
    this.#memoize();
  }

  #global(name: string): void {
    const [module, member] = name.split(" ");
    if (member === undefined)
      throw new CheckpointError(`pickle: ${kindOf({ kind: "global", name })} has no module`);
    if (this.#recall(`global ${name}`)) return;
    this.opcode("c");
    this.#append(new TextEncoder().encode(`${module}\n${member}\n`));
    this.#memoize(`global ${name}`);
  }

  #memoize(key?: string): void {
    const index = this.#memoized++;
    if (key !== undefined) this.#memo.set(key, index);
    if (index < 256) this.opcode("q", index);
    else this.#counted("r", index);
  }

  /** Refers to what was written before, if it was. */
  #recall(key: string): boolean {
    const index = this.#memo.get(key);
    if (index === undefined) return false;
    if (index < 256) this.opcode("h", index);
    else this.#counted("j", index);
    return true;
  }

  /** An opcode and a little-endian 32-bit number. */
  #counted(code: string, value: number): void {
    this.opcode(code, value & 0xff, (value >> 8) & 0xff, (value >> 16) & 0xff, (value >> 24) & 0xff);
  }

  #append(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /** Makes room for so many more bytes. */
  #reserve(count: number): void {
    if (this.#length + count <= this.#bytes.length) return;
    const grown = new Uint8Array(2 * (this.#length + count));
    grown.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = grown;
  }
}

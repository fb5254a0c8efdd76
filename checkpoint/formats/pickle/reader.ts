/**
 * A reader of Python pickles that executes nothing. Only the opcodes that torch's writers use are known; a global must be
 * on the caller's list, and a call is noted down, not made. One pass without recursion; nothing is allocated by a length
 * that the input claims; memory is a small multiple of the input.
 *
 * Format: Lib/pickletools.py of CPython, protocols 2 to 5.
 *
 * @module
 */
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { kindOf, type PickleDict, type PickleValue } from "./values.ts";

/** How a global may be used: made into an object without arguments, called, or as it stands. */
export type GlobalUse = "object" | "call" | "constant";

/** Bounds of what is accepted. */
const MAX_MARKS = 1000;
const MAX_STACK = 1 << 20;
const MAX_STRING_BYTES = 1 << 24;

/**
 * Reads one pickle.
 *
 * @param globals what may be named, as `"module name"`, and how each may be used
 * @throws CheckpointError that names the byte and the problem: a global that is not listed, an opcode that is not known,
 *   a stack that runs empty, bytes that are missing or left over.
 */
export function readPickle(bytes: Uint8Array, globals: ReadonlyMap<string, GlobalUse>): PickleValue {
  return new Machine(bytes, globals).run();
}

/** The stack machine of one pickle. */
class Machine {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #globals: ReadonlyMap<string, GlobalUse>;
  readonly #utf8: TextDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  #at = 0;
  readonly #stack: PickleValue[] = [];
  /** Where on the stack each open mark stands. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, PickleValue>();

  constructor(bytes: Uint8Array, globals: ReadonlyMap<string, GlobalUse>) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#globals = globals;
  }

  run(): PickleValue {
    if (this.#bytes[0] !== 0x80) throw this.#fail("it does not begin with a protocol");
    for (;;) {
      const opcode = this.#take(1);
      if (opcode === 0x2e) break;
      const action = ACTIONS[opcode];
      if (action === undefined) throw this.#fail(`opcode 0x${opcode.toString(16)} is not allowed`);
      action(this);
      if (this.#stack.length > MAX_STACK) throw this.#fail(`a stack of more than ${MAX_STACK} values`);
    }
    if (this.#stack.length !== 1 || this.#marks.length > 0) {
      throw this.#fail(`it ends with ${this.#stack.length} values and ${this.#marks.length} marks open`);
    }
    if (this.#at !== this.#bytes.length)
      throw this.#fail(`${this.#bytes.length - this.#at} bytes follow its end`);
    return this.#stack[0]!;
  }

  protocol(): void {
    const version = this.#take(1);
    if (this.#at !== 2) throw this.#fail("a second protocol");
    if (version < 2 || version > 5) throw this.#fail(`protocol ${version}, allowed are 2 to 5`);
  }

  /** Frames group what follows; only their length is checked. */
  frame(): void {
    const length = this.#view.getBigUint64(this.#skip(8), true);
    if (length > BigInt(this.#bytes.length - this.#at)) throw this.#fail(`a frame of ${length} bytes`);
  }

  push(value: PickleValue): void {
    this.#stack.push(value);
  }

  integer(width: 1 | 2 | 4): void {
    const at = this.#skip(width);
    const view = this.#view;
    this.push(
      width === 1 ? view.getUint8(at) : width === 2 ? view.getUint16(at, true) : view.getInt32(at, true),
    );
  }

  /** Little-endian two's complement of up to 255 bytes. */
  long(): void {
    const length = this.#take(1);
    const at = this.#skip(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.#bytes[at + i]!);
    value = BigInt.asIntN(8 * length, value);
    const number = Number(value);
    this.push(Number.isSafeInteger(number) ? number : value);
  }

  float(): void {
    this.push({ kind: "float", value: this.#view.getFloat64(this.#skip(8), false) });
  }

  text(width: 1 | 4): void {
    this.push(this.#text(this.#skipCounted(width), this.#at));
  }

  bytes(width: 1 | 4): void {
    this.push(this.#bytes.slice(this.#skipCounted(width), this.#at));
  }

  mark(): void {
    if (this.#marks.length >= MAX_MARKS) throw this.#fail(`nesting deeper than ${MAX_MARKS}`);
    this.#marks.push(this.#stack.length);
  }

  /** The last `count` values, or those since the last mark, as a tuple. */
  tuple(count?: number): void {
    this.push({ kind: "tuple", items: count === undefined ? this.#popMarked() : this.#pop(count) });
  }

  append(count?: 1): void {
    const items = count === undefined ? this.#popMarked() : this.#pop(1);
    const list = this.#top();
    if (!Array.isArray(list)) throw this.#fail(`an append to a ${kindOf(list)}`);
    for (const item of items) list.push(item);
  }

  setItems(count?: 2): void {
    const items = count === undefined ? this.#popMarked() : this.#pop(2);
    if (items.length % 2 !== 0) throw this.#fail("a key without a value");
    const target = this.#top();
    if (!isDict(target)) throw this.#fail(`items for a ${kindOf(target)}`);
    for (let i = 0; i < items.length; i += 2) target.entries.push([items[i]!, items[i + 1]!]);
  }

  memoize(index?: number): void {
    this.#memo.set(index ?? this.#memo.size, this.#top());
  }

  put(width: 1 | 4): void {
    this.memoize(this.#index(width));
  }

  get(width: 1 | 4): void {
    const index = this.#index(width);
    const value = this.#memo.get(index);
    if (value === undefined) throw this.#fail(`memo ${index}, which was not set`);
    this.push(value);
  }

  /** A global whose module and name are lines of text. */
  globalLines(): void {
    const [module, name] = [this.#line(), this.#line()];
    this.#global(module, name);
  }

  /** A global whose module and name are on the stack. */
  stackGlobal(): void {
    const [module, name] = this.#pop(2);
    if (typeof module !== "string" || typeof name !== "string") throw this.#fail("a global without a name");
    this.#global(module, name);
  }

  newObject(): void {
    const [type, args] = this.#pop(2);
    this.push({ kind: "object", type: this.#callee(type!, "object", args!, 0), state: undefined });
  }

  reduce(): void {
    const [callee, args] = this.#pop(2);
    const name = this.#callee(callee!, "call", args!);
    const { items } = args as { items: readonly PickleValue[] };
    // The one callee whose result is filled afterwards.
    if (name === "collections OrderedDict" && items.length === 0) this.push({ kind: "dict", entries: [] });
    else this.push({ kind: "call", callee: name, args: items });
  }

  build(): void {
    const [state] = this.#pop(1);
    const target = this.#top();
    // An OrderedDict with attributes of its own, as modules' state dicts have (`_metadata`): its entries are all there is.
    if (isDict(target) && isDict(state!)) return;
    if (target === null || typeof target !== "object" || !("kind" in target) || target.kind !== "object") {
      throw this.#fail(`state for a ${kindOf(target)}`);
    }
    if (target.state !== undefined) throw this.#fail(`a second state for a ${target.type}`);
    target.state = state;
  }

  persistent(): void {
    this.push({ kind: "persistent", id: this.#pop(1)[0]! });
  }

  #global(module: string, name: string): void {
    const full = `${module} ${name}`;
    if (!this.#globals.has(full)) {
      throw this.#fail(`global ${JSON.stringify(full.slice(0, 140))} is not allowed`);
    }
    this.push({ kind: "global", name: full });
  }

  /** The name of a global that is about to be used. */
  #callee(value: PickleValue, use: GlobalUse, args: PickleValue, most?: number): string {
    const name =
      value !== null && typeof value === "object" && "kind" in value && value.kind === "global"
        ? value.name
        : undefined;
    if (name === undefined || this.#globals.get(name) !== use)
      throw this.#fail(`a ${kindOf(value)} where a ${use} is due`);
    const tuple =
      args !== null && typeof args === "object" && "kind" in args && args.kind === "tuple" ? args : undefined;
    if (tuple === undefined || tuple.items.length > (most ?? 64)) throw this.#fail(`arguments of ${name}`);
    return name;
  }

  #top(): PickleValue {
    if (this.#stack.length <= (this.#marks.at(-1) ?? 0)) throw this.#fail("the stack is empty");
    return this.#stack.at(-1)!;
  }

  #pop(count: number): PickleValue[] {
    const stack = this.#stack;
    const begin = stack.length - count;
    if (begin < (this.#marks.at(-1) ?? 0)) throw this.#fail("the stack is empty");
    // By hand: taking one to three values off the end is most of what a pickle does.
    const values = new Array<PickleValue>(count);
    for (let i = 0; i < count; i++) values[i] = stack[begin + i]!;
    stack.length = begin;
    return values;
  }

  #popMarked(): PickleValue[] {
    const mark = this.#marks.pop();
    if (mark === undefined) throw this.#fail("no mark is open");
    return this.#stack.splice(mark);
  }

  #index(width: 1 | 4): number {
    const at = this.#skip(width);
    return width === 1 ? this.#bytes[at]! : this.#view.getUint32(at, true);
  }

  /** Passes over a counted string and gives where it begins. */
  #skipCounted(width: 1 | 4): number {
    const length = this.#index(width);
    if (length > MAX_STRING_BYTES)
      throw this.#fail(`a string of ${length} bytes, allowed are ${MAX_STRING_BYTES}`);
    return this.#skip(length);
  }

  #line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0 || end - this.#at > 1024) throw this.#fail("a line without an end");
    const begin = this.#skip(end + 1 - this.#at);
    return this.#text(begin, end);
  }

  #text(begin: number, end: number): string {
    try {
      return this.#utf8.decode(this.#bytes.subarray(begin, end));
    } catch {
      throw this.#fail("a string that is not valid UTF-8");
    }
  }

  #take(count: 1): number {
    return this.#bytes[this.#skip(count)]!;
  }

  /** Passes over bytes and gives where they begin. */
  #skip(count: number): number {
    const begin = this.#at;
    if (count > this.#bytes.length - begin) {
      throw this.#fail(`${count} more bytes are due, ${this.#bytes.length - begin} are left`);
    }
    this.#at += count;
    return begin;
  }

  #fail(problem: string): CheckpointError {
    return new CheckpointError(`pickle: byte ${this.#at}: ${problem}`);
  }
}

/** What each allowed opcode does. */
const ACTIONS: readonly (((machine: Machine) => void) | undefined)[] = sparse({
  "\x80": (m) => m.protocol(),
  "\x95": (m) => m.frame(),
  N: (m) => m.push(null),
  "\x88": (m) => m.push(true),
  "\x89": (m) => m.push(false),
  K: (m) => m.integer(1),
  M: (m) => m.integer(2),
  J: (m) => m.integer(4),
  "\x8a": (m) => m.long(),
  G: (m) => m.float(),
  "\x8c": (m) => m.text(1),
  X: (m) => m.text(4),
  C: (m) => m.bytes(1),
  B: (m) => m.bytes(4),
  "(": (m) => m.mark(),
  ")": (m) => m.tuple(0),
  "\x85": (m) => m.tuple(1),
  "\x86": (m) => m.tuple(2),
  "\x87": (m) => m.tuple(3),
  t: (m) => m.tuple(),
  "]": (m) => m.push([]),
  a: (m) => m.append(1),
  e: (m) => m.append(),
  "}": (m) => m.push({ kind: "dict", entries: [] }),
  s: (m) => m.setItems(2),
  u: (m) => m.setItems(),
  "\x94": (m) => m.memoize(),
  q: (m) => m.put(1),
  r: (m) => m.put(4),
  h: (m) => m.get(1),
  j: (m) => m.get(4),
  c: (m) => m.globalLines(),
  "\x93": (m) => m.stackGlobal(),
  "\x81": (m) => m.newObject(),
  R: (m) => m.reduce(),
  b: (m) => m.build(),
  Q: (m) => m.persistent(),
});

function sparse(
  actions: Readonly<Record<string, (machine: Machine) => void>>,
): readonly (((machine: Machine) => void) | undefined)[] {
  const table = new Array<((machine: Machine) => void) | undefined>(256).fill(undefined);
  for (const [opcode, action] of Object.entries(actions)) table[opcode.charCodeAt(0)] = action;
  return table;
}

function isDict(value: PickleValue): value is PickleDict {
  return value !== null && typeof value === "object" && "kind" in value && value.kind === "dict";
}

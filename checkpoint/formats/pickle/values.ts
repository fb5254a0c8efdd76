/**
 * What a pickle may hold once it is read: data, and never code. Python's kinds that JSON has no words for (floats beside
 * integers, tuples beside lists, keys of any kind) stay apart, so that what was read can be written again as it was.
 *
 * @module
 */

/** A Python float; integers are plain numbers, or bigints beyond 2^53. */
export interface PickleFloat {
  readonly kind: "float";
  readonly value: number;
}

/** A tuple. */
export interface PickleTuple {
  readonly kind: "tuple";
  readonly items: readonly PickleValue[];
}

/** A dict, in order of insertion. */
export interface PickleDict {
  readonly kind: "dict";
  readonly entries: (readonly [PickleValue, PickleValue])[];
}

/** A class, function or constant by name; never looked up anywhere. */
export interface PickleGlobal {
  readonly kind: "global";
  /** Module and name, for example `"torch Size"`. */
  readonly name: string;
}

/** An object made without arguments, and the state that it was given. */
export interface PickleObject {
  readonly kind: "object";
  readonly type: string;
  state: PickleValue | undefined;
}

/** The result of a call that was only noted down. */
export interface PickleCall {
  readonly kind: "call";
  readonly callee: string;
  readonly args: readonly PickleValue[];
}

/** What the pickle refers to outside itself, as a storage in torch.save. */
export interface PicklePersistent {
  readonly kind: "persistent";
  readonly id: PickleValue;
}

/** Any value. Arrays are lists. */
export type PickleValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | PickleValue[]
  | PickleFloat
  | PickleTuple
  | PickleDict
  | PickleGlobal
  | PickleObject
  | PickleCall
  | PicklePersistent;

/** Names the kind of a value, for messages. */
export function kindOf(value: PickleValue): string {
  if (value === null) return "None";
  if (Array.isArray(value)) return "list";
  if (value instanceof Uint8Array) return "bytes";
  if (typeof value !== "object")
    return typeof value === "string" ? "str" : typeof value === "boolean" ? "bool" : "int";
  if (value.kind === "object") return value.type;
  if (value.kind === "call") return `result of ${value.callee}`;
  return value.kind === "global" ? value.name : value.kind;
}

/** A tuple of values. */
export function tuple(...items: readonly PickleValue[]): PickleTuple {
  return { kind: "tuple", items };
}

/** A dict of text keys. */
export function dict(entries: Iterable<readonly [PickleValue, PickleValue]>): PickleDict {
  return { kind: "dict", entries: [...entries] };
}

/** A class, function or constant by module and name. */
export function global(name: string): PickleGlobal {
  return { kind: "global", name };
}

/** An object with the given state. */
export function object(type: string, state?: PickleValue): PickleObject {
  return { kind: "object", type, state };
}

/** A call. */
export function call(callee: string, ...args: readonly PickleValue[]): PickleCall {
  return { kind: "call", callee, args };
}

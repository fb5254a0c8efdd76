/**
 * What a decoder expects of a pickled value, or an error that says what stands there.
 *
 * @module
 */
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { kindOf, type PickleObject, type PickleValue } from "../pickle/values.ts";

/** Whether a value is an object of a class. */
export function isObject(value: PickleValue, type: string): value is PickleObject {
  return isTagged(value) && value.kind === "object" && value.type === type;
}

/** The fields of an object of a class. */
export function fieldsOf(value: PickleValue, type: string): ReadonlyMap<string, PickleValue> {
  if (!isObject(value, type)) throw unexpected(value, type);
  const fields = new Map<string, PickleValue>();
  for (const [key, field] of entriesOf(value.state ?? null)) {
    const name = text(key, `a field of ${type}`);
    if (fields.has(name)) throw new CheckpointError(`${type}: its field ${JSON.stringify(name)} comes twice`);
    fields.set(name, field);
  }
  return fields;
}

/** The entries of a dict. */
export function entriesOf(value: PickleValue): readonly (readonly [PickleValue, PickleValue])[] {
  if (isTagged(value) && value.kind === "dict") return value.entries;
  throw unexpected(value, "dict");
}

/** The items of a tuple. */
export function itemsOf(value: PickleValue): readonly PickleValue[] {
  if (isTagged(value) && value.kind === "tuple") return value.items;
  throw unexpected(value, "tuple");
}

/** What a function was called with. */
export function callArgs(value: PickleValue, callee: string): readonly PickleValue[] {
  if (isTagged(value) && value.kind === "call" && value.callee === callee) return value.args;
  throw unexpected(value, callee);
}

/** A text. */
export function text(value: PickleValue, what: string): string {
  if (typeof value === "string") return value;
  throw new CheckpointError(`${what} is a ${kindOf(value)}, allowed is text`);
}

/** An integer from 0 to 2^53 - 1. */
export function count(value: PickleValue, what: string): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  const given = typeof value === "number" || typeof value === "bigint" ? String(value) : `a ${kindOf(value)}`;
  throw new CheckpointError(`${what} is ${given}, allowed are integers from 0 to 2^53 - 1`);
}

function isTagged(value: PickleValue): value is Extract<PickleValue, { readonly kind: string }> {
  return value !== null && typeof value === "object" && "kind" in value;
}

function unexpected(value: PickleValue, wanted: string): CheckpointError {
  return new CheckpointError(`a ${kindOf(value)} where a ${wanted} must stand`);
}

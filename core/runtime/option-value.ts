/**
 * One option's value: from text to its type, and in words what is allowed.
 *
 * @module
 */
import type { OptionSpec } from "../contracts/command.ts";
import { quotedList } from "./names.ts";

/** Decimal numbers, with an exponent if any; no hexadecimal, no spaces, no infinities. */
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/** The value that `text` stands for, or `undefined` when the option does not allow it. */
export function parseOptionValue(spec: OptionSpec, text: string): string | number | boolean | undefined {
  switch (spec.type) {
    case "string":
      return spec.choices === undefined || spec.choices.includes(text) ? text : undefined;
    case "boolean":
      return /^true$/i.test(text) ? true : /^false$/i.test(text) ? false : undefined;
    case "number":
    case "integer": {
      if (!NUMBER.test(text)) return undefined;
      const value = Number(text);
      const whole = spec.type === "number" ? Number.isFinite(value) : Number.isSafeInteger(value);
      if (!whole || value < (spec.min ?? -Infinity) || value > (spec.max ?? Infinity)) return undefined;
      return value;
    }
  }
}

/** What an option allows, as the end of a message: `allowed are integers from 1`. */
export function describeValues(spec: OptionSpec): string {
  switch (spec.type) {
    case "string":
      return spec.choices === undefined ? "allowed is any text" : `allowed are ${quotedList(spec.choices)}`;
    case "boolean":
      return 'allowed are "true", "false"';
    case "number":
    case "integer":
      return `allowed are ${spec.type}s${describeRange(spec)}`;
  }
}

/** ` from 1 to 8`, ` from 1`, ` up to 8`, or nothing. */
export function describeRange(spec: OptionSpec): string {
  const { min, max } = spec;
  if (min !== undefined) return max === undefined ? ` from ${min}` : ` from ${min} to ${max}`;
  return max === undefined ? "" : ` up to ${max}`;
}

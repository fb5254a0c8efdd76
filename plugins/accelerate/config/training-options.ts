/**
 * What configuration says beside sharding: mixed precision and gradient accumulation.
 *
 * @module
 */
import * as v from "valibot";
import type { OptionSpec } from "../../../core/contracts/command.ts";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { described } from "./values.ts";

/** What units gather, compute and reduce in; `no`: float32. */
export type Precision = "no" | "fp16" | "bf16";

/** Options of commands that train. */
export const TRAINING_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  "mixed-precision": {
    type: "string",
    choices: ["no", "fp16", "bf16"],
    default: "no",
    description: "gather, compute and reduce in 16 bits; shards and optimizer state stay float32",
  },
  "gradient-accumulation-steps": { type: "integer", min: 1, default: 1, description: "microbatches a step" },
};

/** A value, and what the user wrote to give it. */
export type Candidate = readonly [value: unknown, where: string];

// YAML reads a bare `no` as false.
const PrecisionValue = v.pipe(
  v.union([v.pipe(v.string(), v.trim(), v.toLowerCase()), v.literal(false)]),
  v.transform((value) => (value === false ? "no" : value)),
  v.picklist(["no", "fp16", "bf16"]),
);
const StepsValue = v.pipe(
  v.union([v.number(), v.pipe(v.string(), v.trim(), v.regex(/^\d+$/), v.transform(Number))]),
  v.safeInteger(),
  v.minValue(1),
);

/** The first value that is given, or `no`. @throws ConfigError for another value. */
export function mixedPrecision(...candidates: readonly Candidate[]): Precision {
  return firstOf(PrecisionValue, candidates, 'allowed are "no", "fp16", "bf16"') ?? "no";
}

/** The first value that is given, or 1. @throws ConfigError for another value. */
export function gradientAccumulation(...candidates: readonly Candidate[]): number {
  return firstOf(StepsValue, candidates, "allowed are integers from 1") ?? 1;
}

/** The first value that is given, checked. @throws ConfigError that names it as the user wrote it. */
export function firstOf<T>(
  schema: v.GenericSchema<unknown, T>,
  candidates: readonly Candidate[],
  allowed: string,
): T | undefined {
  const found = candidates.find(([value]) => value !== undefined && value !== null && value !== "");
  if (found === undefined) return undefined;
  const [value, where] = found;
  const parsed = v.safeParse(schema, value);
  if (parsed.success) return parsed.output;
  throw new ConfigError(`cannot use ${where}: given ${described(value)}, ${allowed}`);
}

/**
 * Checks of the values that optimizers take.
 *
 * @module
 */
import * as v from "valibot";

/** A finite number >= 0. */
export const atLeastZero: v.GenericSchema<unknown, number> = v.custom<number>(
  (value) => typeof value === "number" && Number.isFinite(value) && value >= 0,
  (issue) => `${issue.received}, allowed are numbers >= 0`,
);

/** A number in [0, 1). */
export const belowOne: v.GenericSchema<unknown, number> = v.custom<number>(
  (value) => typeof value === "number" && value >= 0 && value < 1,
  (issue) => `${issue.received}, allowed are numbers from 0 to below 1`,
);

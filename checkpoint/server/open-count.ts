/**
 * How many of something are open at once, and how many may be.
 *
 * @module
 */

/** A count with a bound, which who opens one keeps. */
export interface OpenCount {
  open: number;
  readonly limit: number;
}

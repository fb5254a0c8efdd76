/**
 * Memory accounting: every buffer of a backend belongs to one category, and a backend answers at any time how many
 * bytes each category holds now and held at most.
 *
 * @module
 */

/** What a buffer is for. */
export type MemoryCategory = "parameter" | "gradient" | "optimizer" | "activation" | "communication";

/** All categories, in report order. */
export const MEMORY_CATEGORIES: readonly MemoryCategory[] = [
  "parameter",
  "gradient",
  "optimizer",
  "activation",
  "communication",
];

/** Bytes by category. */
export type MemoryBytes = Readonly<Record<MemoryCategory, number>>;

/** A snapshot of a backend's memory, in bytes. */
export interface MemoryReport {
  readonly current: MemoryBytes;
  /** Highest value of each category since the last reset; the categories need not peak together. */
  readonly peak: MemoryBytes;
  readonly currentTotal: number;
  /** Highest sum of all categories since the last reset. */
  readonly peakTotal: number;
  /** Highest sum of parameter, gradient and optimizer bytes since the last reset: what sharding divides. */
  readonly peakState: number;
}

/** The accounting that a backend exposes. */
export interface MemoryAccount {
  report(): MemoryReport;
  /** Starts new peaks from the current values. */
  resetPeak(): void;
}

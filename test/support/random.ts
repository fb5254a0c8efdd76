/**
 * Random choices that a seed repeats.
 *
 * @module
 */

/** Choices drawn one after another. */
export interface Choices {
  /** From 0 up to 1. */
  number(): number;
  /** An integer from 0 up to `end`, `end` excluded. */
  below(end: number): number;
  /** True so often: 0 never, 1 always. */
  chance(probability: number): boolean;
  /** One of some. */
  pick<T>(from: readonly T[]): T;
}

/** Choices of a seed (mulberry32). */
export function seeded(seed: number): Choices {
  let state = seed | 0;
  const number = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let word = Math.imul(state ^ (state >>> 15), 1 | state);
    word = (word + Math.imul(word ^ (word >>> 7), 61 | word)) ^ word;
    return ((word ^ (word >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (end: number): number => Math.floor(number() * end);
  return {
    number,
    below,
    chance: (probability) => number() < probability,
    pick: (from) => from[below(from.length)]!,
  };
}

/**
 * The order in which an epoch takes a dataset's samples: one for all ranks, from a seed and the epoch's number alone.
 *
 * @module
 */
import { randomWords, streamKey } from "../../../core/tensor/random.ts";

/** Which order. */
export interface OrderOptions {
  readonly shuffle: boolean;
  readonly seed: number;
  readonly epoch: number;
}

/** A place in the order to the sample there. Equal options give the same order on every machine. */
export function epochOrder(length: number, options: OrderOptions): (place: number) => number {
  if (!options.shuffle) return (place) => place;
  const words = new Uint32Array(length);
  randomWords(streamKey(options.seed, "data-loader", options.epoch), 0, words);
  const order = Uint32Array.from({ length }, (_, i) => i);
  // Fisher and Yates, from the end.
  for (let i = length - 1; i > 0; i--) {
    const j = Math.floor((words[i]! / 2 ** 32) * (i + 1));
    const other = order[j]!;
    order[j] = order[i]!;
    order[i] = other;
  }
  return (place) => order[place]!;
}

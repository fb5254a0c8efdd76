/**
 * Rounds: what all ranks take of a dataset at a time, a batch each. Rank r has the r-th batch of a round, as
 * `BatchSamplerShard` of accelerate/data_loader.py deals them out, so that batches joined in rank order are the dataset in
 * its order.
 *
 * Where ranks are several, the last round of an epoch is filled up with samples from the epoch's beginning: every rank has
 * as many batches of one size, and no collective waits for a rank that has run out. How many of a round's samples are
 * true is told with it.
 *
 * @module
 */

/** How rounds are dealt out. */
export interface RoundOptions {
  readonly rank: number;
  readonly worldSize: number;
  /** Samples of one rank's batch. */
  readonly batchSize: number;
  /** An incomplete last round is left out. */
  readonly dropLast: boolean;
  /** True samples of the epoch, over all ranks, that came before the first round. */
  readonly start: number;
}

/** One rank's part of a round. */
export interface Round<T> {
  /** This rank's samples. */
  readonly items: readonly T[];
  /** True samples of the round over all ranks. */
  readonly samples: number;
  /** True samples of the epoch up to the end of the round. */
  readonly end: number;
  /** The epoch's last. */
  readonly last: boolean;
}

/** A dataset whose samples can be asked for in any order. */
export interface IndexedDataset<T> {
  readonly length: number;
  get(index: number): T | Promise<T>;
}

/** Rounds of `length - start` samples. */
export function countRounds(length: number, options: Omit<RoundOptions, "rank">): number {
  const left = Math.max(0, length - options.start) / (options.batchSize * options.worldSize);
  return options.dropLast ? Math.floor(left) : Math.ceil(left);
}

/** Rounds of a dataset of known length, in an order. Just this rank's samples are asked for. */
export async function* indexedRounds<T>(
  dataset: IndexedDataset<T>,
  order: (place: number) => number,
  options: RoundOptions,
): AsyncGenerator<Round<T>> {
  const { rank, batchSize, start } = options;
  const { length } = dataset;
  const round = batchSize * options.worldSize;
  const count = countRounds(length, options);
  for (let i = 0; i < count; i++) {
    const begin = start + i * round;
    const end = Math.min(begin + round, length);
    const first = begin + rank * batchSize;
    const items: T[] = [];
    for (let place = first; place < first + batchSize; place++) {
      if (place < length) items.push(await dataset.get(order(place)));
      else if (options.worldSize > 1) items.push(await dataset.get(order(place % length)));
    }
    yield { items, samples: end - begin, end, last: i === count - 1 };
  }
}

/** Rounds of a dataset that is read from its beginning. Every rank reads all of it, and keeps its part. */
export async function* streamedRounds<T>(
  dataset: Iterable<T> | AsyncIterable<T>,
  options: RoundOptions,
): AsyncGenerator<Round<T>> {
  const { rank, worldSize, batchSize, dropLast, start } = options;
  const round = batchSize * worldSize;
  const first: T[] = [];
  let end = start;
  const deal = (samples: readonly T[], last: boolean): Round<T> => {
    end += samples.length;
    const items: T[] = [];
    for (let place = rank * batchSize; place < (rank + 1) * batchSize; place++) {
      if (place < samples.length) items.push(samples[place]!);
      else if (worldSize > 1) items.push(first[(place - samples.length) % first.length]!);
    }
    return { items, samples: samples.length, end, last };
  };
  let waiting: readonly T[] | undefined;
  let samples: T[] = [];
  let read = 0;
  for await (const sample of dataset) {
    if (first.length < round) first.push(sample);
    if (read++ < start) continue;
    samples.push(sample);
    if (samples.length < round) continue;
    // One round is held back: only what follows tells whether it is the last.
    if (waiting !== undefined) yield deal(waiting, false);
    waiting = samples;
    samples = [];
  }
  const more = samples.length > 0 && !dropLast;
  if (waiting !== undefined) yield deal(waiting, !more);
  if (more) yield deal(samples, true);
}

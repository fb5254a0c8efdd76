/**
 * DataLoader: what batches a dataset is to be cut into. `Accelerator.prepare` makes of it what a rank iterates over.
 *
 * @module
 */
import { ConfigError } from "../../../core/contracts/errors.ts";
import type { Device } from "../../../core/tensor/device.ts";
import { type Collate, type Collated, defaultCollate } from "./collate.ts";
import type { IndexedDataset } from "./rounds.ts";

/** Samples: in an array, behind a `get`, or to be read from the beginning in every epoch, the same on every rank. */
export type Dataset<T> = ArrayLike<T> | IndexedDataset<T> | Iterable<T> | AsyncIterable<T>;

/** Options of a loader. */
export interface DataLoaderOptions<T, B> {
  /** Samples of one rank's batch (of all ranks' together with `splitBatches`). Default 1. */
  readonly batchSize?: number;
  /** Every epoch has an order of its own. Default false. */
  readonly shuffle?: boolean;
  /** Of the order, the same on every rank. Default: the accelerator's. */
  readonly seed?: number;
  /** Leave out an incomplete last batch. Default false. */
  readonly dropLast?: boolean;
  /** Samples to a batch. Default: `defaultCollate`. */
  readonly collate?: Collate<T, B>;
}

/** A dataset, and how it is cut into batches. */
export class DataLoader<T, B = Collated<T>> {
  /** With `get` when its length is known. */
  readonly dataset: IndexedDataset<T> | Iterable<T> | AsyncIterable<T>;
  readonly batchSize: number;
  readonly shuffle: boolean;
  readonly seed: number | undefined;
  readonly dropLast: boolean;
  readonly #own: { collate(samples: readonly T[], device: Device): B | Promise<B> };

  /** @throws ConfigError for a dataset or options that are not allowed. */
  constructor(dataset: Dataset<T>, options: DataLoaderOptions<T, B> = {}) {
    const { batchSize = 1, shuffle = false, seed, dropLast = false } = options;
    if (!Number.isSafeInteger(batchSize) || batchSize < 1) {
      throw new ConfigError(
        `cannot make a DataLoader: given a batchSize of ${batchSize}, allowed are integers from 1`,
      );
    }
    if (seed !== undefined && !Number.isSafeInteger(seed)) {
      throw new ConfigError(`cannot make a DataLoader: given a seed of ${seed}, allowed are integers`);
    }
    this.dataset = checkedDataset(dataset);
    if (shuffle && !isIndexed(this.dataset)) {
      throw new ConfigError(
        "cannot make a DataLoader: given shuffle for a dataset that is read from its beginning, allowed are datasets with a length",
      );
    }
    this.batchSize = batchSize;
    this.shuffle = shuffle;
    this.seed = seed;
    this.dropLast = dropLast;
    this.#own = { collate: options.collate ?? (defaultCollate as unknown as Collate<T, B>) };
  }

  /** The batch of some samples. */
  async collate(samples: readonly T[], device: Device): Promise<B> {
    return await this.#own.collate(samples, device);
  }
}

/** Whether a dataset's samples can be asked for in any order. */
export function isIndexed<T>(
  dataset: IndexedDataset<T> | Iterable<T> | AsyncIterable<T>,
): dataset is IndexedDataset<T> {
  return "get" in dataset;
}

function checkedDataset<T>(dataset: Dataset<T>): IndexedDataset<T> | Iterable<T> | AsyncIterable<T> {
  if (typeof dataset === "object" && dataset !== null) {
    if ("length" in dataset && "get" in dataset && typeof dataset.get === "function") return dataset;
    if ("length" in dataset) {
      const samples = dataset as ArrayLike<T>;
      return {
        get length() {
          return samples.length;
        },
        get: (index) => samples[index]!,
      };
    }
    if (Symbol.iterator in dataset || Symbol.asyncIterator in dataset) return dataset;
  }
  throw new ConfigError(
    `cannot make a DataLoader: given a dataset of type ${typeof dataset}, allowed are arrays, { length, get }, and what can be iterated over`,
  );
}

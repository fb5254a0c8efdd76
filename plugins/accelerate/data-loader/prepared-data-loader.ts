/**
 * A rank's share of a data loader: its batches, on its device, from any place in an epoch.
 *
 * The tensors of a batch live until the next one is asked for, or the loop ends; `keep()` does not hold them longer,
 * `alias()` does.
 *
 * @module
 */
import * as v from "valibot";
import type { Value } from "../../../core/contracts/checkpointer.ts";
import { CheckpointError, ConfigError } from "../../../core/contracts/errors.ts";
import type { Device } from "../../../core/tensor/device.ts";
import { tensorsOf } from "../../../core/tensor/nested-tensors.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { type DataLoader, isIndexed } from "./data-loader.ts";
import { epochOrder } from "./order.ts";
import { countRounds, indexedRounds, type Round, type RoundOptions, streamedRounds } from "./rounds.ts";

/** Who iterates. */
export interface LoaderPlace {
  readonly rank: number;
  readonly worldSize: number;
  readonly device: Device;
  /** A loader's `batchSize` is that of all ranks together. */
  readonly splitBatches: boolean;
  /** Loaders that are being iterated over, the innermost last. */
  readonly running: PreparedDataLoader<unknown>[];
}

const COUNT = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const SAVED = v.strictObject({
  epoch: COUNT,
  samples: COUNT,
  seed: v.pipe(v.number(), v.safeInteger()),
  length: v.nullable(COUNT),
});

/** Gives a rank its batches. `for await (const batch of loader)` is one epoch. */
export class PreparedDataLoader<B> implements AsyncIterable<B> {
  /** Samples of one rank's batch. */
  readonly batchSize: number;
  /** Samples of all ranks' batches together. */
  readonly totalBatchSize: number;
  readonly #loader: DataLoader<unknown, B>;
  readonly #place: LoaderPlace;
  #seed: number;
  #epoch = 0;
  /** True samples of the epoch that were given out, or are to be passed over. */
  #samples = 0;
  /** The epoch was begun by an iteration. */
  #begun = false;
  #round: Round<unknown> | undefined;

  /** @throws ConfigError with `splitBatches` when ranks cannot share a batch. */
  constructor(loader: DataLoader<unknown, B>, place: LoaderPlace) {
    const { batchSize } = loader;
    const own = place.splitBatches ? batchSize / place.worldSize : batchSize;
    if (!Number.isInteger(own)) {
      throw new ConfigError(
        `cannot prepare a DataLoader: given splitBatches and a batchSize of ${batchSize} for ${place.worldSize} ranks, allowed are multiples of that`,
      );
    }
    this.batchSize = own;
    this.totalBatchSize = own * place.worldSize;
    this.#loader = loader;
    this.#place = place;
    this.#seed = loader.seed ?? place.device.seed;
  }

  /** Batches of an epoch, the same number on every rank; `undefined` when only reading the dataset can tell. */
  get length(): number | undefined {
    const { dataset } = this.#loader;
    return isIndexed(dataset) ? countRounds(dataset.length, this.#options(0)) : undefined;
  }

  /** The epoch that runs, or the next one to run; counted from 0. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Makes `epoch` the next one, from its beginning; the one that a checkpoint was loaded into goes on where it was. */
  setEpoch(epoch: number): void {
    if (!Number.isSafeInteger(epoch) || epoch < 0) {
      throw new ConfigError(`cannot set a loader's epoch: given ${epoch}, allowed are integers from 0`);
    }
    if (epoch === this.#epoch && !this.#begun) return;
    this.#epoch = epoch;
    this.#samples = 0;
    this.#begun = false;
  }

  /** Whether the batch that was given out last is the epoch's last. */
  get endOfEpoch(): boolean {
    return this.#round?.last === true;
  }

  /** True samples among all ranks' batches of the last round: fewer than `totalBatchSize` only at an epoch's end. */
  get samplesInRound(): number {
    return this.#round?.samples ?? this.totalBatchSize;
  }

  [Symbol.asyncIterator](): AsyncGenerator<B, void, void> {
    return this.#iterate(0);
  }

  /** An epoch without its first `batches`. */
  from(batches: number): AsyncIterable<B> {
    if (!Number.isSafeInteger(batches) || batches < 0) {
      throw new ConfigError(`cannot skip batches: given ${batches}, allowed are integers from 0`);
    }
    return { [Symbol.asyncIterator]: () => this.#iterate(batches) };
  }

  /** What a checkpoint needs, the same on every rank. */
  values(): Readonly<Record<string, Value>> {
    return { epoch: this.#epoch, samples: this.#samples, seed: this.#seed, length: this.#datasetLength };
  }

  /**
   * Takes over what `values` gave, at whatever number of ranks: the next iteration goes on with the next sample.
   *
   * @throws CheckpointError when it is something else, or in the middle of an epoch over a dataset of another length.
   */
  loadValues(values: unknown): void {
    const saved = v.safeParse(SAVED, values);
    if (!saved.success) {
      throw new CheckpointError(
        "Loading a DataLoader failed: allowed are epoch, samples, seed and length, whole numbers",
      );
    }
    const { epoch, samples, seed, length } = saved.output;
    if (samples > 0 && length !== this.#datasetLength) {
      throw new CheckpointError(
        `Loading a DataLoader failed: it was saved after ${samples} of ${length} samples, the dataset has ${this.#datasetLength} now`,
      );
    }
    this.#epoch = epoch;
    this.#samples = samples;
    this.#seed = seed;
    this.#begun = false;
  }

  get #datasetLength(): number | null {
    const { dataset } = this.#loader;
    return isIndexed(dataset) ? dataset.length : null;
  }

  #options(start: number): RoundOptions {
    const { rank, worldSize } = this.#place;
    return { rank, worldSize, batchSize: this.batchSize, dropLast: this.#loader.dropLast, start };
  }

  async *#iterate(skip: number): AsyncGenerator<B, void, void> {
    // A loop that was left early has had its epoch.
    if (this.#begun) this.setEpoch(this.#epoch + 1);
    this.#begun = true;
    const { device, running } = this.#place;
    const { dataset, shuffle } = this.#loader;
    const options = this.#options(this.#samples + skip * this.totalBatchSize);
    const rounds = isIndexed(dataset)
      ? indexedRounds(
          dataset,
          epochOrder(dataset.length, { shuffle, seed: this.#seed, epoch: this.#epoch }),
          options,
        )
      : streamedRounds(dataset, options);
    running.push(this as PreparedDataLoader<unknown>);
    let made: readonly Tensor[] = [];
    try {
      for await (const round of rounds) {
        for (const tensor of made) tensor.dispose();
        made = [];
        const batch = await device.scope(() => this.#loader.collate(round.items, device));
        // What has no scope was there before. What was made is held here: a backward pass would end it otherwise.
        made = tensorsOf(batch).filter((tensor) => tensor.scope !== undefined);
        for (const tensor of made) tensor.keep();
        this.#round = round;
        this.#samples = round.end;
        yield batch;
      }
      this.setEpoch(this.#epoch + 1);
    } finally {
      for (const tensor of made) tensor.dispose();
      const at = running.lastIndexOf(this as PreparedDataLoader<unknown>);
      if (at >= 0) running.splice(at, 1);
      this.#round = undefined;
    }
  }
}

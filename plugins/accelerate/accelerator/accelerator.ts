/**
 * Accelerator: one object by which a training script for one process becomes one for any number of ranks, as
 * `accelerate.Accelerator`.
 *
 * @module
 */
import process from "node:process";
import type { Collective } from "../../../core/contracts/collective.ts";
import { ConfigError, StateError } from "../../../core/contracts/errors.ts";
import type { Registry } from "../../../core/contracts/plugin.ts";
import { allReduce } from "../../../core/engine/all-reduce.ts";
import { type FullModelStateDict, getModelStateDict } from "../../../core/engine/model-state-dict.ts";
import { setRequiresGradientSync } from "../../../core/engine/shard-module.ts";
import type { AnyModule } from "../../../core/nn/module.ts";
import type { Parameter } from "../../../core/nn/parameter.ts";
import { GradScaler } from "../../../core/optim/grad-scaler.ts";
import type { Device } from "../../../core/tensor/device.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import type { FullyShardedDataParallelPlugin } from "../config/fsdp-plugin.ts";
import type { PreparedDataLoader } from "../data-loader/prepared-data-loader.ts";
import { type Checkpointing, loadParts, saveParts } from "./checkpointing.ts";
import { clipNorm, clipValue } from "./clip-gradients.ts";
import { broadcastTensor, exchanged, gatherTensor, reduceTensor } from "./exchange.ts";
import { GradientState } from "./gradient-state.ts";
import { type AcceleratorOptions, type ResolvedOptions, resolveAcceleratorOptions } from "./options.ts";
import { type AcceleratorPlace, findPlace } from "./place.ts";
import type { Preparable, Prepared } from "./prepare.ts";
import { PreparedObjects } from "./prepared-objects.ts";
import { writeModel } from "./save-model.ts";
import type { Checkpointable } from "./saved-state.ts";
import { jsonlTracker, type LoggedValue, type Tracker } from "./tracker.ts";

/**
 * Makes an accelerator for the rank that calls, or for a script that runs alone. Every rank makes its own.
 *
 * @throws ConfigError for options that are not allowed. @throws PluginError for an unknown backend.
 */
export async function createAccelerator(
  registry: Registry,
  options: AcceleratorOptions = {},
): Promise<Accelerator> {
  const resolved = resolveAcceleratorOptions(options);
  const { backend, backendSettings, seed } = options;
  const { offload } = resolved.fsdpPlugin.config;
  const place = await findPlace(registry, { backend, backendSettings, seed, offload });
  const { name, capabilities } = place.device.backend;
  const dtype = resolved.policy?.paramDtype;
  if (dtype !== undefined && !capabilities.computeDTypes.includes(dtype)) {
    await place.close();
    throw new ConfigError(
      `cannot use mixedPrecision: given ${dtype}, backend "${name}" computes in ${capabilities.computeDTypes.join(", ")} here`,
    );
  }
  return new Accelerator(registry, options, resolved, place);
}

/** A rank's part in a training run. */
export class Accelerator {
  readonly device: Device;
  /** All ranks. */
  readonly collective: Collective;
  readonly fsdpPlugin: FullyShardedDataParallelPlugin;
  readonly mixedPrecision: ResolvedOptions["precision"];
  readonly #registry: Registry;
  readonly #options: AcceleratorOptions;
  readonly #place: AcceleratorPlace;
  readonly #gradients: GradientState;
  readonly #prepared: PreparedObjects;
  readonly #trackers: readonly Tracker[];
  readonly #custom: Checkpointable[] = [];
  #accumulating = false;
  #resumed = false;

  constructor(
    registry: Registry,
    options: AcceleratorOptions,
    resolved: ResolvedOptions,
    place: AcceleratorPlace,
  ) {
    const { device, context } = place;
    this.device = device;
    this.collective = context.collective;
    this.fsdpPlugin = resolved.fsdpPlugin;
    this.mixedPrecision = resolved.precision;
    this.#registry = registry;
    this.#options = options;
    this.#place = place;
    const scaler = resolved.policy?.paramDtype === "float16" ? new GradScaler() : undefined;
    this.#gradients = new GradientState(resolved.accumulation, scaler, device);
    const { fsdpPlugin, policy: precision } = resolved;
    this.#prepared = new PreparedObjects(
      { registry, place, fsdpPlugin, precision },
      this.#gradients,
      options.splitBatches ?? false,
    );
    const trackers = [options.logWith ?? []].flat() as readonly (string | Tracker)[];
    this.#trackers = trackers.map((tracker) =>
      typeof tracker === "string" ? jsonlTracker(tracker, () => this.#resumed) : tracker,
    );
  }

  /** Number of ranks. */
  get numProcesses(): number {
    return this.#place.context.worldSize;
  }

  /** This rank among all. */
  get processIndex(): number {
    return this.#place.context.rank;
  }

  /** This rank among those of its host. */
  get localProcessIndex(): number {
    return this.processIndex % this.#place.context.localWorldSize;
  }

  get isMainProcess(): boolean {
    return this.processIndex === 0;
  }

  /** Whether this is the first rank of its host. */
  get isLocalMainProcess(): boolean {
    return this.localProcessIndex === 0;
  }

  get isLastProcess(): boolean {
    return this.processIndex === this.numProcesses - 1;
  }

  get gradientAccumulationSteps(): number {
    return this.#gradients.steps;
  }

  /** Whether gradients are complete: the last microbatch that was begun ends its window. */
  get syncGradients(): boolean {
    return this.#gradients.syncGradients;
  }

  /** Whether an optimizer left its last step out, because gradients had overflowed. */
  get optimizerStepWasSkipped(): boolean {
    return this.#prepared.optimizers.some((optimizer) => optimizer.stepWasSkipped);
  }

  /**
   * Prepares models, optimizers, schedulers and data loaders, in any order, together or one after the other; but a model no
   * later than its optimizer. What was prepared before is given back. Collective.
   *
   * @returns the prepared objects in the order in which they were given. A model is sharded in place.
   * @throws ConfigError for something else, or a configuration that does not fit the model.
   *
   * @example
   * const [model, optimizer, loader] = await accelerator.prepare(net, new optim.AdamW(net.parameters()), data);
   */
  async prepare<const T extends readonly Preparable[]>(
    ...objects: T
  ): Promise<{ -readonly [K in keyof T]: Prepared<T[K]> }> {
    return (await this.#prepared.prepare(objects)) as never;
  }

  /** The model without what `prepare` put around it: itself, which is sharded in place. */
  unwrapModel<M extends AnyModule>(model: M): M {
    return model;
  }

  /**
   * The backward pass of a loss, a scalar: gradients are averaged over ranks and, inside `accumulate`, over the microbatches
   * of a window. Collective.
   */
  async backward(loss: Tensor): Promise<void> {
    const factor = this.#gradients.backward();
    // Of more than one element it is refused there.
    if (factor === 1 || loss.numel !== 1) await loss.backward();
    else {
      using gradient = this.device.full(loss.shape, factor, { dtype: loss.dtype }).keep();
      await loss.backward({ gradient });
    }
    if (!this.syncGradients) return;
    // What sharding leaves alone is whole on every rank, and equal: as long as its gradients are averaged.
    for (const model of this.#prepared.models) {
      for (const { manager, grad } of model.parameters()) {
        if (manager === undefined && grad !== undefined) await allReduce(this.collective, grad, "avg").wait();
      }
    }
  }

  /**
   * Runs one microbatch. Only the last of a window reduces gradients, and lets optimizers and schedulers step; an epoch's
   * last batch ends a window too, whose gradients are averaged over the microbatches that it has. What `body` makes and
   * does not return is freed.
   */
  async accumulate<T>(models: AnyModule | readonly AnyModule[], body: () => T | Promise<T>): Promise<T> {
    const some = this.#prepared.requireModels("accumulate()", models);
    if (this.#accumulating) {
      throw new StateError("accumulate() failed: it is under way, call it when that has ended");
    }
    this.#accumulating = true;
    this.#gradients.begin(this.#prepared.running?.endOfEpoch === true);
    try {
      const run = () => this.device.scope(body);
      return this.syncGradients ? await run() : await withoutSync(some, run);
    } finally {
      this.#accumulating = false;
      this.#gradients.end();
    }
  }

  /** Runs `body`, in which backward passes of the models reduce nothing: gradients add up whole on each rank. */
  async noSync<T>(models: AnyModule | readonly AnyModule[], body: () => T | Promise<T>): Promise<T> {
    return await withoutSync(this.#prepared.requireModels("noSync()", models), body);
  }

  /**
   * Scales gradients of any parameters so that their joint norm over all ranks is at most `maxNorm`. Collective.
   *
   * @returns the norm before clipping, the same on every rank; `undefined`, with nothing done, while a window of
   * accumulation is open.
   */
  async clipGradNorm(
    parameters: Iterable<Parameter>,
    maxNorm: number,
    normType = 2,
  ): Promise<number | undefined> {
    if (!this.syncGradients) return undefined;
    const given = [...parameters];
    return await clipNorm(this.#prepared.optimizersOf(given), given, maxNorm, normType);
  }

  /** Limits every element of the gradients to `-value ... value`, if a window of accumulation has ended. Collective. */
  async clipGradValue(parameters: Iterable<Parameter>, value: number): Promise<void> {
    if (!this.syncGradients) return;
    const given = [...parameters];
    await clipValue(this.#prepared.optimizersOf(given), given, value);
  }

  /** Divides gradients by the loss scale, to look at them or change them; clipping and steps do it by themselves. Collective. */
  async unscaleGradients(): Promise<void> {
    for (const optimizer of this.#prepared.optimizers) await optimizer.unscale();
  }

  /**
   * Saves models, optimizers, schedulers, loss scale, random state, places in data, and registered objects as checkpoint
   * `checkpoint_N`, where N follows the last one there. Each rank writes just its shards. Collective.
   *
   * @param location a folder, or the URL of a run of a checkpoint service. Default: of the project.
   * @returns where it lies.
   * @throws StateError while a window of accumulation is open: its gradients would be lost.
   * @throws CheckpointError on every rank when it cannot be written.
   */
  async saveState(location: string = this.#checkpoints("save state")): Promise<string> {
    if (this.#gradients.open > 0) {
      throw new StateError(
        `saveState() failed: ${this.#gradients.open} of ${this.#gradients.steps} microbatches are accumulated, and gradients are not saved, call it when syncGradients is true`,
      );
    }
    return await saveParts(this.#checkpointing(), location, this.#options.totalLimit);
  }

  /**
   * Goes on from a checkpoint, which any number of ranks under either version of FSDP may have written. Collective.
   *
   * @param location one checkpoint, or where several lie: then the newest. Default: the project's.
   * @returns where it lies.
   * @throws CheckpointError on every rank when there is none, or it does not fit what was prepared.
   */
  async loadState(location: string = this.#checkpoints("load state")): Promise<string> {
    const place = await loadParts(this.#checkpointing(), location);
    this.#gradients.loaded();
    this.#resumed = true;
    return place;
  }

  /** Lets `saveState` and `loadState` take care of further objects, in the order in which they are registered. */
  registerForCheckpointing(...objects: readonly Checkpointable[]): void {
    for (const [i, object] of objects.entries()) {
      const fits = typeof object?.values === "function" && typeof object.loadValues === "function";
      if (fits) continue;
      throw new ConfigError(
        `cannot register argument ${i} for checkpointing: given ${typeof object}, allowed are objects with values() and loadValues(values)`,
      );
    }
    this.#custom.push(...objects);
  }

  /** A model's whole parameters by name, in host memory: on the main process, the others get an empty dict. Collective. */
  async getStateDict(
    model: AnyModule,
    options: { readonly rank0Only?: boolean } = {},
  ): Promise<FullModelStateDict> {
    return await getModelStateDict(model, { fullStateDict: true, cpuOffload: options.rank0Only ?? true });
  }

  /**
   * Writes a model's whole parameters as `model.safetensors`, or as several files behind an index, where Hugging Face's
   * libraries find them. Earlier ones in the folder are replaced. The main process holds one parameter at a time.
   * Collective.
   *
   * @param options.maxShardSize largest file, in bytes or as text. Default `"10GB"`.
   * @throws CheckpointError on every rank when it cannot be written; the weights that were there go when the new ones are.
   */
  async saveModel(
    model: AnyModule,
    folder: string,
    options: { readonly maxShardSize?: number | string } = {},
  ): Promise<void> {
    const { maxShardSize = "10GB" } = options;
    const place = { registry: this.#registry, world: this.collective, folder, maxShardSize };
    await writeModel(model, place);
  }

  /** Every rank's tensors [rows, ...] as one [ranks * rows, ...], in rank order. Of one shape on all ranks. Collective. */
  async gather<T>(value: T): Promise<T> {
    return await exchanged(value, "gather()", {
      tensor: (tensor) => gatherTensor(tensor, this.collective),
    });
  }

  /** As `gather`, of a row for each sample, without the samples that fill up an epoch's last batch. Collective. */
  async gatherForMetrics<T>(value: T): Promise<T> {
    const loader = this.#prepared.running;
    return await exchanged(value, "gatherForMetrics()", {
      tensor: async (tensor) => {
        const all = await gatherTensor(tensor, this.collective);
        if (loader === undefined || all.shape[0] !== loader.totalBatchSize) return all;
        const { samplesInRound: rows } = loader;
        return rows < loader.totalBatchSize ? ops.slice(all, 0, 0, rows) : all;
      },
    });
  }

  /** Sums of tensors and numbers over ranks, or means, times `scale`. Collective. */
  async reduce<T>(value: T, reduction: "sum" | "mean" = "sum", scale = 1): Promise<T> {
    const op = reduction === "mean" ? "avg" : "sum";
    return await exchanged(value, "reduce()", {
      tensor: (tensor) => reduceTensor(tensor, this.collective, op, scale),
      number: async (own) => {
        const sum = Float64Array.of(own);
        await this.collective.allReduce(sum, op, "float64").wait();
        return sum[0]! * scale;
      },
    });
  }

  /** Tensors and numbers of rank `from`, on all. Collective. */
  async broadcast<T>(value: T, from = 0): Promise<T> {
    return await exchanged(value, "broadcast()", {
      tensor: (tensor) => broadcastTensor(tensor, this.collective, from),
      number: async (own) => {
        const data = Float64Array.of(own);
        await this.collective.broadcast(data, from).wait();
        return data[0]!;
      },
    });
  }

  /** Resolves when every rank has called it. */
  async waitForEveryone(): Promise<void> {
    await this.collective.barrier().wait();
  }

  /** Runs `body` on the main process, and on the others when that is done. Collective. */
  async mainProcessFirst<T>(body: () => T | Promise<T>): Promise<T> {
    return await this.#inTurn(this.isMainProcess, body);
  }

  /** Runs `body` on the first rank of each host, and on the others when those are done. Collective. */
  async localMainProcessFirst<T>(body: () => T | Promise<T>): Promise<T> {
    return await this.#inTurn(this.isLocalMainProcess, body);
  }

  /** A function that does what `body` does on the main process, and nothing on the others. */
  onMainProcess<A extends readonly unknown[], R>(body: (...args: A) => R): (...args: A) => R | undefined {
    return (...args) => (this.isMainProcess ? body(...args) : undefined);
  }

  /** A function that does what `body` does on the first rank of each host, and nothing on the others. */
  onLocalMainProcess<A extends readonly unknown[], R>(
    body: (...args: A) => R,
  ): (...args: A) => R | undefined {
    return (...args) => (this.isLocalMainProcess ? body(...args) : undefined);
  }

  /** Prints a line, once for each host. */
  print(...values: readonly unknown[]): void {
    if (this.isLocalMainProcess) process.stdout.write(`${values.map(String).join(" ")}\n`);
  }

  /** Writes figures to the trackers, on the main process. */
  async log(
    values: Readonly<Record<string, LoggedValue>>,
    options: { readonly step?: number } = {},
  ): Promise<void> {
    if (!this.isMainProcess) return;
    for (const tracker of this.#trackers) await tracker.log(values, options.step);
  }

  /** An epoch of a prepared loader without its first `batches`. What `loadState` has filled goes on by itself. */
  skipFirstBatches<B>(loader: PreparedDataLoader<B>, batches: number): AsyncIterable<B> {
    return loader.from(batches);
  }

  /** Frees everything that was prepared; other models may be prepared then. */
  freeMemory(): void {
    this.#prepared.free();
    this.#custom.length = 0;
  }

  /** Ends trackers, and the device that was made for this accelerator. To be called last, or `await using`. */
  async endTraining(): Promise<void> {
    if (this.isMainProcess) for (const tracker of this.#trackers) await tracker.finish?.();
    await this.#place.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.endTraining();
  }

  #checkpointing(): Checkpointing {
    const { models, optimizers, schedulers, loaders } = this.#prepared;
    const { scaler } = this.#gradients;
    const custom = this.#custom;
    const parts = { models, optimizers, schedulers, loaders, custom, scaler, device: this.device };
    return { registry: this.#registry, world: this.collective, parts };
  }

  #checkpoints(what: string): string {
    const { projectDir } = this.#options;
    if (projectDir === undefined) {
      throw new ConfigError(`cannot ${what}: given no location, allowed is none when projectDir is given`);
    }
    return projectDir.includes("://") ? projectDir : `${projectDir.replace(/\/+$/, "")}/checkpoints`;
  }

  async #inTurn<T>(first: boolean, body: () => T | Promise<T>): Promise<T> {
    if (!first) await this.waitForEveryone();
    try {
      return await body();
    } finally {
      // Also after a failure: the others wait.
      if (first) await this.waitForEveryone();
    }
  }
}

async function withoutSync<T>(models: readonly AnyModule[], body: () => T | Promise<T>): Promise<T> {
  for (const model of models) setRequiresGradientSync(model, false);
  try {
    return await body();
  } finally {
    for (const model of models) setRequiresGradientSync(model, true);
  }
}

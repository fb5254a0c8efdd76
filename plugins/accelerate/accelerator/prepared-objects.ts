/**
 * What an accelerator has prepared, in the order in which it was given: the order in which a checkpoint has it.
 *
 * @module
 */
import { ConfigError } from "../../../core/contracts/errors.ts";
import type { AnyModule } from "../../../core/nn/module.ts";
import type { Parameter } from "../../../core/nn/parameter.ts";
import type { GroupValues, Optimizer } from "../../../core/optim/optimizer.ts";
import { LRScheduler } from "../../../core/optim/schedule.ts";
import type { CausalLanguageModel } from "../../../core/runtime/model-family.ts";
import { DataLoader } from "../data-loader/data-loader.ts";
import { type LoaderPlace, PreparedDataLoader } from "../data-loader/prepared-data-loader.ts";
import { AcceleratedOptimizer } from "./accelerated-optimizer.ts";
import { AcceleratedScheduler } from "./accelerated-scheduler.ts";
import type { GradientState } from "./gradient-state.ts";
import {
  checkOptimizer,
  checkPreparable,
  isPrepared,
  type ModelPreparation,
  moduleOf,
  type Preparable,
  prepareModel,
} from "./prepare.ts";

/** Prepares objects, and remembers them. */
export class PreparedObjects {
  readonly models: AnyModule[] = [];
  readonly optimizers: AcceleratedOptimizer[] = [];
  readonly schedulers: AcceleratedScheduler[] = [];
  readonly loaders: PreparedDataLoader<unknown>[] = [];
  readonly #preparation: ModelPreparation;
  readonly #gradients: GradientState;
  readonly #loaderPlace: LoaderPlace;
  /** What was prepared, by what was given. */
  readonly #known = new Map<unknown, unknown>();

  constructor(preparation: ModelPreparation, gradients: GradientState, splitBatches: boolean) {
    const { device, context } = preparation.place;
    const { rank, worldSize } = context;
    this.#preparation = preparation;
    this.#gradients = gradients;
    this.#loaderPlace = { rank, worldSize, device, splitBatches, running: [] };
  }

  /** The innermost loader that is being iterated over. */
  get running(): PreparedDataLoader<unknown> | undefined {
    return this.#loaderPlace.running.at(-1);
  }

  /** Prepares objects. What is in doubt is refused before anything is changed. Collective. */
  async prepare(objects: readonly Preparable[]): Promise<unknown[]> {
    for (const [i, object] of objects.entries()) checkPreparable(object, i);
    const models = objects.filter((object) => moduleOf(object) !== undefined) as (
      | AnyModule
      | CausalLanguageModel
    )[];
    const all = [...this.models, ...models.map((model) => moduleOf(model)!)];
    for (const object of objects) {
      if ("zeroGrad" in object && !isPrepared(object)) checkOptimizer(object as Optimizer<GroupValues>, all);
    }
    for (const model of models) {
      const module = moduleOf(model)!;
      if (this.models.includes(module)) continue;
      await prepareModel(model, this.#preparation);
      this.models.push(module);
    }
    return objects.map((object) => {
      if (moduleOf(object) !== undefined || isPrepared(object)) return object;
      const made = this.#known.get(object) ?? this.#make(object);
      this.#known.set(object, made);
      return made;
    });
  }

  /** Those that have any of the parameters. */
  optimizersOf(parameters: readonly Parameter[]): readonly AcceleratedOptimizer[] {
    const given = new Set(parameters);
    return this.optimizers.filter((optimizer) => optimizer.parameters.some((each) => given.has(each)));
  }

  /** Models that a call was given. @throws ConfigError for one that is not prepared. */
  requireModels(call: string, models: AnyModule | readonly AnyModule[]): readonly AnyModule[] {
    const given = [models].flat() as readonly AnyModule[];
    const stranger = given.find((model) => !this.models.includes(model));
    if (stranger === undefined) return given;
    throw new ConfigError(
      `${call} failed: given ${stranger?.constructor?.name ?? typeof stranger}, which is not prepared, allowed are models from prepare()`,
    );
  }

  /** Frees and forgets everything. */
  free(): void {
    for (const { optimizer } of this.optimizers) {
      optimizer.zeroGrad();
      optimizer.dispose();
    }
    for (const model of this.models) model.dispose();
    for (const list of [this.models, this.optimizers, this.schedulers, this.loaders]) list.length = 0;
    this.#known.clear();
  }

  #make(object: Preparable): unknown {
    if (object instanceof DataLoader) {
      const loader = new PreparedDataLoader(object, this.#loaderPlace);
      this.loaders.push(loader);
      return loader;
    }
    if (object instanceof LRScheduler) {
      const scheduler = new AcceleratedScheduler(object, this.#gradients, this.optimizers);
      this.schedulers.push(scheduler);
      return scheduler;
    }
    const optimizer = new AcceleratedOptimizer(object as Optimizer<GroupValues>, this.#gradients);
    this.optimizers.push(optimizer);
    return optimizer;
  }
}

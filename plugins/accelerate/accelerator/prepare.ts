/**
 * Preparing: from what a script made for one process to what works over all ranks.
 *
 * A model is sharded in place, and parameters keep their identity, so optimizers may have been made before or after, and
 * nothing depends on the order in which objects are given.
 *
 * @module
 */
import { ConfigError } from "../../../core/contracts/errors.ts";
import type { Registry } from "../../../core/contracts/plugin.ts";
import { castFloating, type MixedPrecisionPolicy } from "../../../core/engine/mixed-precision.ts";
import { unitsBelow } from "../../../core/engine/shard-module.ts";
import { type AnyModule, Module } from "../../../core/nn/module.ts";
import { type GroupValues, Optimizer } from "../../../core/optim/optimizer.ts";
import { LRScheduler } from "../../../core/optim/schedule.ts";
import type { CausalLanguageModel } from "../../../core/runtime/model-family.ts";
import { materialize, shardModel } from "../../../core/runtime/shard-model.ts";
import type { FullyShardedDataParallelPlugin } from "../config/fsdp-plugin.ts";
import { DataLoader } from "../data-loader/data-loader.ts";
import { PreparedDataLoader } from "../data-loader/prepared-data-loader.ts";
import { AcceleratedOptimizer } from "./accelerated-optimizer.ts";
import { AcceleratedScheduler } from "./accelerated-scheduler.ts";
import type { AcceleratorPlace } from "./place.ts";

/** What is prepared of an object. */
export type Prepared<T> =
  T extends DataLoader<infer _, infer B>
    ? PreparedDataLoader<B>
    : T extends Optimizer<infer V>
      ? AcceleratedOptimizer<V>
      : T extends LRScheduler
        ? AcceleratedScheduler
        : T;

/** What can be prepared. */
export type Preparable =
  | AnyModule
  | CausalLanguageModel
  | Optimizer<GroupValues>
  | LRScheduler
  | DataLoader<unknown, unknown>
  | AcceleratedOptimizer
  | AcceleratedScheduler
  | PreparedDataLoader<unknown>;

/** The module of a model. @throws ConfigError for something else. */
export function moduleOf(model: unknown): AnyModule | undefined {
  if (model instanceof Module) return model as AnyModule;
  const isFamily =
    typeof model === "object" && model !== null && "module" in model && "blockClasses" in model;
  return isFamily && model.module instanceof Module ? (model.module as AnyModule) : undefined;
}

/** Whether an object was prepared already. */
export function isPrepared(object: unknown): boolean {
  return [AcceleratedOptimizer, AcceleratedScheduler, PreparedDataLoader].some(
    (kind) => object instanceof kind,
  );
}

/** @throws ConfigError for something that cannot be prepared. */
export function checkPreparable(object: unknown, position: number): void {
  const kinds = [Optimizer, LRScheduler, DataLoader];
  if (moduleOf(object) !== undefined || isPrepared(object)) return;
  if (kinds.some((kind) => object instanceof kind)) return;
  const given = typeof object === "object" && object !== null ? object.constructor?.name : typeof object;
  throw new ConfigError(
    `cannot prepare argument ${position}: given ${given ?? "an object"}, allowed are a module, a language model, an optimizer, an LRScheduler and a DataLoader`,
  );
}

/** How models are prepared. */
export interface ModelPreparation {
  readonly registry: Registry;
  readonly place: AcceleratorPlace;
  readonly fsdpPlugin: FullyShardedDataParallelPlugin;
  readonly precision: MixedPrecisionPolicy | undefined;
}

/** Shards a model, unless its script has, and puts it on the device. Collective. */
export async function prepareModel(
  model: AnyModule | CausalLanguageModel,
  { registry, place, fsdpPlugin, precision }: ModelPreparation,
): Promise<void> {
  const module = moduleOf(model)!;
  const { config, overrides } = fsdpPlugin;
  const { context, device, host } = place;
  if (unitsBelow(module).length === 0) {
    const family = "blockClasses" in model ? model : undefined;
    await shardModel(registry, module, config, {
      ...overrides,
      collective: context.collective,
      localWorldSize: context.localWorldSize,
      blockClasses: family?.blockClasses,
      rootModules: family?.rootModules,
      precision,
      offload: host === undefined ? undefined : { device: host },
    });
  }
  await materialize(module, device, config);
  const narrow = precision?.paramDtype === "float16" || precision?.paramDtype === "bfloat16";
  if (narrow && precision.outputDtype === undefined) {
    // What a script makes of outputs, its loss above all, has full precision.
    module.wrapCall(async (args, next) => castFloating(await next(args), "float32"));
  }
}

/** @throws ConfigError when an optimizer has a parameter of a model that is not prepared. */
export function checkOptimizer(optimizer: Optimizer<GroupValues>, models: readonly AnyModule[]): void {
  const known = new Set(models.flatMap((model) => model.parameters()));
  for (const { params } of optimizer.groups) {
    const stranger = params.find((parameter) => !known.has(parameter));
    if (stranger === undefined) continue;
    const name = stranger.name === "" ? `of shape [${stranger.shape.join(", ")}]` : `"${stranger.name}"`;
    throw new ConfigError(
      `cannot prepare ${optimizer.constructor.name}: its parameter ${name} is in no prepared model, prepare that model before or in the same call`,
    );
  }
}

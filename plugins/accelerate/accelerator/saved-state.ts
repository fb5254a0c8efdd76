/**
 * What an accelerator's checkpoint holds: tensors of models and optimizers under the names that any checkpoint of this
 * project has, and the values of everything else that a run goes on from.
 *
 * Of a second model or optimizer, and so on, names begin with `model_1.`, `optim_1.`.
 *
 * @module
 */
import * as v from "valibot";
import type { StateTensor, Value } from "../../../core/contracts/checkpointer.ts";
import type { Collective } from "../../../core/contracts/collective.ts";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { modelState, optimizerState } from "../../../core/engine/sharded-state.ts";
import type { AnyModule } from "../../../core/nn/module.ts";
import type { GradScaler } from "../../../core/optim/grad-scaler.ts";
import type { Device } from "../../../core/tensor/device.ts";
import type { PreparedDataLoader } from "../data-loader/prepared-data-loader.ts";
import type { AcceleratedOptimizer } from "./accelerated-optimizer.ts";
import type { AcceleratedScheduler } from "./accelerated-scheduler.ts";

/** What can be saved beside what is prepared. */
export interface Checkpointable {
  /** Its state, the same on every rank. */
  values(): Value;
  /** Takes over what `values` gave. */
  loadValues(values: unknown): void | Promise<void>;
}

/** Everything that a checkpoint is taken of. */
export interface StatefulParts {
  readonly models: readonly AnyModule[];
  readonly optimizers: readonly AcceleratedOptimizer[];
  readonly schedulers: readonly AcceleratedScheduler[];
  readonly loaders: readonly PreparedDataLoader<unknown>[];
  readonly custom: readonly Checkpointable[];
  readonly scaler: GradScaler | undefined;
  readonly device: Device;
}

/** Under which a checkpoint's values stand. */
const KEY = "accelerator";

/** What `saveState` wrote of values. Of lists, each object checks its own. */
export interface SavedValues {
  readonly seed: number;
  readonly optimizers: readonly unknown[];
  readonly schedulers: readonly unknown[];
  readonly loaders: readonly unknown[];
  readonly custom: readonly unknown[];
  readonly scaler: unknown;
}

const Saved: v.GenericSchema<unknown, SavedValues> = v.object({
  seed: v.pipe(v.number(), v.safeInteger()),
  optimizers: v.array(v.unknown()),
  schedulers: v.array(v.unknown()),
  loaders: v.array(v.unknown()),
  custom: v.array(v.unknown()),
  scaler: v.unknown(),
});
const Streams = v.object({ streams: v.pipe(v.number(), v.safeInteger(), v.minValue(0)) });

/** The tensors, as this rank holds them. */
export function tensorsOfParts(parts: StatefulParts, world: Collective): StateTensor[] {
  const models = parts.models.flatMap((model, m) =>
    modelState(model, world).map((tensor) => renamed(tensor, "model.", `model${suffix(m)}.`)),
  );
  const optimizers = parts.optimizers.flatMap(({ optimizer }, o) =>
    parts.models.flatMap((model, m) => {
      const inner = m === 0 ? "" : `model_${m}.`;
      return optimizerState(model, optimizer, world).map((tensor) =>
        renamed(tensor, "optim.state.", `optim${suffix(o)}.state.${inner}`),
      );
    }),
  );
  return [...models, ...optimizers];
}

function suffix(index: number): string {
  return index === 0 ? "" : `_${index}`;
}

function renamed(tensor: StateTensor, from: string, to: string): StateTensor {
  return { ...tensor, name: to + tensor.name.slice(from.length) };
}

/** The values, equal on every rank. */
export function valuesOfParts(parts: StatefulParts): Readonly<Record<string, Value>> {
  const { optimizers, schedulers, loaders, custom, scaler, device } = parts;
  return {
    [KEY]: {
      seed: device.seed,
      optimizers: optimizers.map(({ optimizer }) => optimizer.groupValues()),
      schedulers: schedulers.map(({ scheduler }) => scheduler.values()),
      loaders: loaders.map((loader) => loader.values()),
      custom: custom.map((object) => object.values()),
      scaler: scaler?.values() ?? null,
    },
  };
}

/** This rank's own values. */
export function rankValuesOfParts({ device }: StatefulParts): Readonly<Record<string, Value>> {
  return { streams: device.streamPosition };
}

/**
 * Checks a checkpoint's values against what there is to fill, before anything is.
 *
 * @throws CheckpointError when it is not an accelerator's, or was taken of more or fewer objects.
 */
export function checkValues(
  values: Readonly<Record<string, Value>>,
  parts: StatefulParts,
  name: string,
): SavedValues {
  const saved = v.safeParse(Saved, values[KEY]);
  if (!saved.success) {
    throw new CheckpointError(`load of ${name}: it was not written by saveState, allowed is what was`);
  }
  for (const what of ["optimizers", "schedulers", "loaders", "custom"] as const) {
    const [then, now] = [saved.output[what].length, parts[what].length];
    if (then === now) continue;
    const label = { loaders: "data loaders", custom: "objects registered for checkpointing" };
    throw new CheckpointError(
      `load of ${name}: it has ${then} ${{ optimizers: "optimizers", schedulers: "schedulers", ...label }[what]}, the accelerator has ${now}, allowed are as many, in the same order`,
    );
  }
  return saved.output;
}

/** Fills everything but tensors. @throws CheckpointError or ConfigError for values that an object refuses. */
export async function fillValues(
  saved: SavedValues,
  rankValues: readonly Readonly<Record<string, Value>>[],
  rank: number,
  parts: StatefulParts,
): Promise<void> {
  for (const [i, { optimizer }] of parts.optimizers.entries()) optimizer.loadGroupValues(saved.optimizers[i]);
  for (const [i, { scheduler }] of parts.schedulers.entries()) scheduler.loadValues(saved.schedulers[i]);
  for (const [i, loader] of parts.loaders.entries()) loader.loadValues(saved.loaders[i]);
  for (const [i, object] of parts.custom.entries()) await object.loadValues(saved.custom[i]);
  // A run in full precision saved none; a scaler then begins anew.
  if (parts.scaler !== undefined && saved.scaler !== null) parts.scaler.loadValues(saved.scaler);
  parts.device.seed = saved.seed;
  // Every rank has drawn the same number of streams, so another world size may take any rank's.
  const streams = v.safeParse(Streams, rankValues[rank] ?? rankValues[0]);
  if (streams.success) parts.device.streamPosition = streams.output.streams;
}

/** Training, sharded or as replicas: each rank has the whole model, and gradients are averaged over ranks. */
import { setTimeout as sleep } from "node:timers/promises";
import { StateError } from "../../../../core/contracts/errors.ts";
import { gatherLike, gatherParameter } from "../../../../core/engine/full-tensor.ts";
import { unitsBelow } from "../../../../core/engine/shard-module.ts";
import { Linear } from "../../../../core/nn/mod.ts";
import { AdamW } from "../../../../core/optim/mod.ts";
import type { ConformanceRank } from "../rank.ts";
import { type Model, type ModelSpec, modelOf, pass, type ShardSpec, shard } from "./models.ts";

/** What to train and how. */
export interface TrainSpec {
  readonly model: ModelSpec;
  readonly steps?: number;
  /** How it is sharded; absent: replicas. */
  readonly sharding?: ShardSpec;
  /** All groups are gathered at once before each forward pass; or before each update, which makes that vain. */
  readonly gathering?: "before forward" | "before update";
  /** Of every step in turn, a pattern for the names of parameters that do not learn in it. */
  readonly frozen?: readonly string[];
  /** A pass that fails, which is made before that step. */
  readonly failing?: { readonly step: number; readonly where: "forward" | "backward" };
  /** Ranks pause, each otherwise, between forward and backward passes and updates. */
  readonly uneven?: boolean;
}

/** What training gave: the same on every rank. */
export interface Trained {
  readonly losses: readonly number[];
  /** Whole gradients of the last step, by name, where there are any. */
  readonly gradients: Readonly<Record<string, readonly number[]>>;
  readonly weights: Readonly<Record<string, readonly number[]>>;
  /** Of every group after every step. */
  readonly states: readonly string[];
  /** Of values at rest, gradients and the optimizer's state. */
  readonly dtypes: readonly string[];
  /** Bytes that are left when the model and the optimizer have gone. */
  readonly left: number;
}

/** Trains with AdamW; gradients are freed and set to zeros in turns. */
export async function train(rank: ConformanceRank, spec: TrainSpec): Promise<Trained> {
  const { steps = 4, sharding, frozen = [], failing } = spec;
  const inner = modelOf(spec.model);
  const sharded = sharding && (await shard(rank, inner, sharding));
  const model: Model = sharded?.model ?? inner;
  await model.to(rank.device);
  const groups = sharded === undefined ? [] : [sharded.model, ...sharded.groups];
  const optimizer = optimizerFor(model);
  const losses: number[] = [];
  const states: string[] = [];
  for (let step = 0; step < steps; step++) {
    const still = frozen[step % frozen.length];
    for (const [name, parameter] of model.namedParameters()) {
      parameter.requiresGrad = still === undefined || !new RegExp(still).test(name);
    }
    if (failing?.step === step) {
      await fail(rank, model, spec, failing.where);
      optimizer.zeroGrad();
    }
    if (spec.gathering === "before forward") for (const group of groups) group.unshard({ async: true });
    if (spec.uneven === true) await sleep(((rank.rank + step) % 3) * 3);
    const loss = new Float64Array([await pass(rank, model, spec.model, step)]);
    if (sharded === undefined) await averageGradients(rank, model);
    if (spec.uneven === true) await sleep(((rank.rank * 2 + step) % 3) * 3);
    states.push(...unitsBelow(model).map(({ state }) => state));
    const more = step < steps - 1;
    if (more && spec.gathering === "before update")
      for (const group of groups) group.unshard({ async: true });
    optimizer.step();
    if (more) optimizer.zeroGrad({ setToNone: step % 2 === 0 });
    await rank.collective.allReduce(loss, "avg", "float64").wait();
    losses.push(loss[0]!);
  }
  return await trainedOf(rank, model, optimizer, losses, states);
}

/** The suite's optimizer. Its eps keeps tiny gradients, whose sign rounding may turn, from full updates. */
export function optimizerFor(model: Model): AdamW {
  return new AdamW(model.parameters(), { lr: 1e-2, eps: 1e-3 });
}

/** What training gave; frees everything. */
export async function trainedOf(
  rank: ConformanceRank,
  model: Model,
  optimizer: AdamW,
  losses: readonly number[],
  states: readonly string[],
): Promise<Trained> {
  const weights: Record<string, readonly number[]> = {};
  const gradients: Record<string, readonly number[]> = {};
  const dtypes = new Set<string>();
  for (const [name, parameter] of model.namedParameters()) {
    const { grad, local } = parameter;
    weights[name] = Array.from(await gatherParameter(parameter), Number);
    if (grad !== undefined) gradients[name] = Array.from((await gatherLike(parameter, grad, true))!, Number);
    const state = optimizer.state(parameter)?.tensors.map(({ tensor }) => tensor) ?? [];
    for (const each of [local, grad, ...state]) if (each !== undefined) dtypes.add(each.dtype);
  }
  optimizer.dispose();
  model.dispose();
  await rank.device.backend.flush();
  const left = rank.device.backend.memory.report().currentTotal;
  return { losses, gradients, weights, states, dtypes: [...dtypes], left };
}

/** A pass that fails on every rank, in forward or in backward of a layer in the middle. */
async function fail(
  rank: ConformanceRank,
  model: Model,
  spec: TrainSpec,
  where: "forward" | "backward",
): Promise<void> {
  const layers = [...model.modules()].filter((module) => module instanceof Linear);
  const layer = layers[layers.length >> 1]!;
  const { forward } = layer;
  layer.forward = (x) => {
    if (where === "forward") throw new StateError("made to fail");
    const out = forward.call(layer, x);
    const { device } = rank;
    const backward = (): never => {
      throw new StateError("made to fail");
    };
    return device.record(device.adopt(device.copyOf(out)), { op: "fail", inputs: [out], backward });
  };
  try {
    await pass(rank, model, spec.model, 0);
  } catch (error) {
    if (!(error instanceof StateError) || error.message !== "made to fail") throw error;
  } finally {
    layer.forward = forward;
  }
}

/** What a replica does after its backward pass. */
export async function averageGradients(rank: ConformanceRank, model: Model): Promise<void> {
  for (const { grad } of model.parameters()) {
    if (grad === undefined) continue;
    const values = await grad.data();
    await rank.collective.allReduce(values, "avg", grad.dtype).wait();
    grad.device.backend.write(grad.span, values);
  }
}

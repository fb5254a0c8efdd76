/** Trains a small model under FSDP1, or without sharding, and returns all that can be compared. */
import { expect } from "bun:test";
import { clipGradNorm } from "../../../core/engine/clip.ts";
import { moduleWrap, type WrapPolicy } from "../../../core/engine/wrap-policy.ts";
import type { AnyModule, Module } from "../../../core/nn/mod.ts";
import { AdamW } from "../../../core/optim/mod.ts";
import { type DeviceMesh, initDeviceMesh } from "../../../core/runtime/device-mesh.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import {
  FullyShardedDataParallel,
  type FullyShardedDataParallelOptions,
  type ShardingStrategy,
} from "../../../plugins/fsdp1/mod.ts";
import { Block, Stack } from "../../support/models.ts";
import type { TestRank } from "../../support/ranks.ts";

/** Rows of a batch over all ranks: worlds 1 to 4 share them evenly. */
const ROWS = 12;
const FEATURES = 5;

/** Options of FSDP1 but for the ranks. */
export type Options = Omit<FullyShardedDataParallelOptions, "mesh" | "processGroup">;

/** Two blocks between two layers; no extent is a multiple of another. */
export function stack(): Stack {
  return new Stack({ layers: 2, features: FEATURES, width: 6, hidden: 7 });
}

/** Blocks become units. */
export const wrapBlocks: WrapPolicy = moduleWrap([Block]);

/** The mesh that a strategy works over: hybrid ones replicate over two, when the world lets them. */
export async function meshFor(
  rank: TestRank,
  strategy: ShardingStrategy = "FULL_SHARD",
): Promise<DeviceMesh> {
  if (!strategy.startsWith("HYBRID")) return rank.mesh;
  const replicas = rank.worldSize % 2 === 0 ? 2 : 1;
  return await initDeviceMesh(rank.collective, [replicas, rank.worldSize / replicas]);
}

/** A sharded stack on the rank's device. */
export async function sharded(
  rank: TestRank,
  options: Options = {},
): Promise<FullyShardedDataParallel<Stack>> {
  const mesh = await meshFor(rank, options.shardingStrategy);
  const fsdp = new FullyShardedDataParallel(stack(), {
    mesh,
    autoWrapPolicy: wrapBlocks,
    onWarning: () => {},
    ...options,
  });
  return await fsdp.to(rank.device);
}

/** The rank's rows of batch `step`, the same batch in every world. */
export function batch(
  rank: TestRank,
  step: number,
  rows: number = ROWS,
): { readonly x: Tensor; readonly y: Tensor } {
  const own = rows / rank.worldSize;
  const value = (row: number, column: number) => Math.sin(1 + row * FEATURES + column + step * 31);
  const x = Array.from({ length: own }, (_, i) =>
    Array.from({ length: FEATURES }, (_, j) => value(rank.rank * own + i, j)),
  );
  return { x: rank.device.tensor(x), y: rank.device.tensor(x.map((row) => [row[0]! * row[1]!])) };
}

/** What `backward` is called on. */
export async function lossOf(
  model: Module<[x: Tensor], Tensor>,
  { x, y }: ReturnType<typeof batch>,
): Promise<Tensor> {
  return ops.mseLoss(await model.call(x), y);
}

/** Forward and backward of one batch. Returns the loss of this rank. */
export async function pass(
  rank: TestRank,
  model: Module<[x: Tensor], Tensor>,
  step: number,
): Promise<number> {
  return await rank.device.scope(async () => {
    const loss = await lossOf(model, batch(rank, step));
    await loss.backward();
    return await loss.item();
  });
}

/** The mean of a number over all ranks. */
export async function mean(rank: TestRank, value: number): Promise<number> {
  const sum = new Float64Array([value]);
  await rank.collective.allReduce(sum, "avg", "float64").wait();
  return sum[0]!;
}

/** A run's losses, gradient norms and final weights, all global. */
export interface Run {
  readonly losses: readonly number[];
  readonly norms: readonly number[];
  readonly weights: Readonly<Record<string, readonly number[]>>;
}

/** Trains with AdamW and clipping. */
export async function train(rank: TestRank, options: Options = {}, steps = 4): Promise<Run> {
  const fsdp = await sharded(rank, options);
  const optimizer = new AdamW(fsdp.parameters(), { lr: 0.01, weightDecay: 0.1 });
  const losses: number[] = [];
  const norms: number[] = [];
  for (let step = 0; step < steps; step++) {
    losses.push(await mean(rank, await pass(rank, fsdp, step)));
    norms.push(await fsdp.clipGradNorm(0.5));
    optimizer.step();
    optimizer.zeroGrad();
  }
  return { losses, norms, weights: await weightsOf(fsdp) };
}

/** Whole weights by name. */
export async function weightsOf(
  fsdp: FullyShardedDataParallel<AnyModule>,
): Promise<Record<string, number[]>> {
  const dict = await fsdp.stateDict();
  return Object.fromEntries(Object.entries(dict).map(([name, { data }]) => [name, Array.from(data, Number)]));
}

/** The same on one device, without any sharding. */
export async function trainPlain(rank: TestRank, steps = 4): Promise<Run> {
  const model = await stack().to(rank.device);
  const optimizer = new AdamW(model.parameters(), { lr: 0.01, weightDecay: 0.1 });
  const losses: number[] = [];
  const norms: number[] = [];
  for (let step = 0; step < steps; step++) {
    losses.push(await pass(rank, model, step));
    norms.push(await clipGradNorm(model.parameters(), 0.5));
    optimizer.step();
    optimizer.zeroGrad();
  }
  const weights: Record<string, number[]> = {};
  for (const [name, parameter] of model.namedParameters()) {
    weights[name] = Array.from(await parameter.data(), Number);
  }
  return { losses, norms, weights };
}

/** Asserts that two runs agree up to rounding. */
export function expectSame(run: Run, reference: Run, digits = 5): void {
  const close = (values: readonly number[], wanted: readonly number[]): void => {
    expect(values.length).toBe(wanted.length);
    for (const [i, value] of values.entries()) expect(value).toBeCloseTo(wanted[i]!, digits);
  };
  close(run.losses, reference.losses);
  close(run.norms, reference.norms);
  expect(Object.keys(run.weights).sort()).toEqual(Object.keys(reference.weights).sort());
  for (const [name, values] of Object.entries(run.weights)) close(values, reference.weights[name]!);
}

/**
 * The error that a promise rejects with. What `expect(...).rejects` does blocks the event loop that other ranks need.
 */
export async function failure(promise: Promise<unknown>): Promise<Error> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(Error);
  return error as Error;
}

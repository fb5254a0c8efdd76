/** Trains a small stack, sharded in some way or not at all, for tests that compare the two. */
import { expect } from "bun:test";
import { clipGradNorm } from "../../core/engine/clip.ts";
import { gatherParameter } from "../../core/engine/full-tensor.ts";
import { SGD } from "../../core/optim/mod.ts";
import * as ops from "../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../core/tensor/tensor.ts";
import { Stack } from "./models.ts";
import { runRanks, type TestRank } from "./ranks.ts";

/** Rows of a global batch: what worlds 1, 2, 3 and 4 share evenly. */
const ROWS = 12;

/** A stack whose extents no world shares evenly. */
export function smallStack(layers = 3): Stack {
  return new Stack({ layers, features: 5, width: 6, hidden: 7 });
}

/** A rank's rows of a batch that does not depend on the world. */
export function batch(rank: TestRank, step: number): { readonly x: Tensor; readonly y: Tensor } {
  const rows = ROWS / rank.worldSize;
  const x = Array.from({ length: rows }, (_, i) =>
    Array.from({ length: 5 }, (_, j) => Math.sin(1 + (rank.rank * rows + i) * 5 + j + step * 31)),
  );
  return { x: rank.device.tensor(x), y: rank.device.tensor(x.map((row) => [row[0]! * row[1]!])) };
}

/** Forward and backward of one batch. Returns this rank's loss. */
export async function forwardBackward(rank: TestRank, model: Stack, step: number): Promise<number> {
  return await rank.device.scope(async () => {
    const { x, y } = batch(rank, step);
    const loss = ops.mseLoss(await model.call(x), y);
    await loss.backward();
    return await loss.item();
  });
}

/** What training gave: the same on every rank. */
export interface Trained {
  readonly losses: readonly number[];
  readonly norms: readonly number[];
  readonly weights: Readonly<Record<string, readonly number[]>>;
}

/** What to do with the model, and how. */
export interface TrainOptions {
  readonly layers?: number;
  readonly steps?: number;
  /** Shards it, before it has values. */
  readonly shard?: (model: Stack) => void | Promise<void>;
  /** Called before each step. */
  readonly beforeStep?: (model: Stack, step: number) => void;
}

/** Trains on a device that holds nothing else, and returns what every rank must agree on. Nothing stays behind. */
export async function trainStack(rank: TestRank, options: TrainOptions = {}): Promise<Trained> {
  const model = smallStack(options.layers);
  await options.shard?.(model);
  await model.to(rank.device);
  const optimizer = new SGD(model.parameters(), { lr: 0.1, momentum: 0.9 });
  const losses: number[] = [];
  const norms: number[] = [];
  for (let step = 0; step < (options.steps ?? 3); step++) {
    options.beforeStep?.(model, step);
    const mean = new Float64Array([await forwardBackward(rank, model, step)]);
    norms.push(await clipGradNorm(model.parameters(), 1));
    optimizer.step();
    optimizer.zeroGrad();
    await rank.collective.allReduce(mean, "avg", "float64").wait();
    losses.push(mean[0]!);
  }
  const weights: Record<string, readonly number[]> = {};
  for (const [name, parameter] of model.namedParameters()) {
    weights[name] = Array.from((await gatherParameter(parameter)) as Float32Array);
  }
  optimizer.dispose();
  model.dispose();
  expect(rank.device.backend.memory.report().currentTotal).toBe(0);
  return { losses, norms, weights };
}

/** What one rank gives without sharding. */
export async function trainedAlone(options: TrainOptions = {}): Promise<Trained> {
  const { shard: _, ...others } = options;
  const [alone] = await runRanks(1, (rank) => trainStack(rank, others));
  return alone!;
}

/** Every rank's result is the reference, but for rounding. */
export function expectSame(results: readonly Trained[], reference: Trained, digits = 5): void {
  for (const { losses, norms, weights } of results) {
    for (const [i, loss] of losses.entries()) expect(loss).toBeCloseTo(reference.losses[i]!, digits);
    for (const [i, norm] of norms.entries()) expect(norm).toBeCloseTo(reference.norms[i]!, digits);
    expect(Object.keys(weights)).toEqual(Object.keys(reference.weights));
    for (const [name, values] of Object.entries(weights)) {
      for (const [i, value] of values.entries()) {
        expect(value).toBeCloseTo(reference.weights[name]![i]!, digits);
      }
    }
  }
}

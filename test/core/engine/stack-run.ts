/** A small stack of units, trained: what the tests of training and of clipping run. */
import { clipGradNorm } from "../../../core/engine/clip.ts";
import { gatherParameter } from "../../../core/engine/full-tensor.ts";
import type { MixedPrecisionPolicy } from "../../../core/engine/mixed-precision.ts";
import { AdamW } from "../../../core/optim/mod.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { Stack } from "../../support/models.ts";
import type { TestRank } from "../../support/ranks.ts";

/** Blocks of the stack, each a unit; the root is one more. */
export const LAYERS = 3;
const ROWS = 8;

/** How it is cut and trained. */
export interface Options {
  readonly shard?: boolean;
  readonly reshardAfterForward?: boolean | undefined;
  readonly mpPolicy?: MixedPrecisionPolicy;
  readonly forwardPrefetch?: boolean;
  readonly steps?: number;
  readonly width?: number;
  readonly hidden?: number;
}

/** The stack, cut over the rank's mesh unless told otherwise. */
export function build(rank: TestRank, options: Options): Stack {
  const { shard = true, width = 6, hidden = 10 } = options;
  const model = new Stack({ layers: LAYERS, features: 5, width, hidden });
  if (shard) {
    const { reshardAfterForward, forwardPrefetch, mpPolicy } = options;
    const { outputDtype, ...inner } = mpPolicy ?? {};
    const how = { mesh: rank.mesh, reshardAfterForward, forwardPrefetch };
    for (const block of model.blocks) fullyShard(block, { ...how, mpPolicy: inner });
    fullyShard(model, { ...how, mpPolicy: { ...inner, outputDtype } });
  }
  return model;
}

/** The rank's rows of a batch that does not depend on the world. */
export function batch(rank: TestRank, step: number): { readonly x: Tensor; readonly y: Tensor } {
  const rows = ROWS / rank.worldSize;
  const at = (row: number, column: number) => Math.sin(1 + row * 5 + column + step * 31);
  const x = Array.from({ length: rows }, (_, i) =>
    Array.from({ length: 5 }, (_, j) => at(rank.rank * rows + i, j)),
  );
  return { x: rank.device.tensor(x), y: rank.device.tensor(x.map((row) => [row[0]! * row[1]!])) };
}

/** What every rank must agree on. */
export interface TrainedStack {
  readonly losses: readonly number[];
  readonly norms: readonly number[];
  readonly weights: Readonly<Record<string, readonly number[]>>;
  /** Highest bytes of each step. */
  readonly peaks: readonly number[];
}

/** Trains and returns losses, gradient norms and the final weights, all global. */
export async function train(rank: TestRank, options: Options): Promise<TrainedStack> {
  const model = build(rank, options);
  await model.to(rank.device);
  const optimizer = new AdamW(model.parameters(), { lr: 0.01, weightDecay: 0.1 });
  optimizer.initState();
  const losses: number[] = [];
  const norms: number[] = [];
  const peaks: number[] = [];
  for (let step = 0; step < (options.steps ?? 4); step++) {
    rank.device.backend.memory.resetPeak();
    const loss = await rank.device.scope(async () => {
      const { x, y } = batch(rank, step);
      const error = ops.mseLoss(await model.call(x), y);
      await error.backward();
      return await error.item();
    });
    norms.push(await clipGradNorm(model.parameters(), 0.5));
    optimizer.step();
    optimizer.zeroGrad();
    const mean = new Float64Array([loss]);
    await rank.collective.allReduce(mean, "avg", "float64").wait();
    losses.push(mean[0]!);
    peaks.push(rank.device.backend.memory.report().peakTotal);
  }
  const weights: Record<string, number[]> = {};
  for (const [name, parameter] of model.namedParameters()) {
    weights[name] = Array.from((await gatherParameter(parameter)) as Float32Array);
  }
  return { losses, norms, weights, peaks };
}

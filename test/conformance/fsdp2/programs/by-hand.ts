/** Mixed precision by hand: 16-bit copies of float32 weights, made for every step. */
import type { AdamW } from "../../../../core/optim/mod.ts";
import * as ops from "../../../../core/tensor/ops/mod.ts";
import type { ConformanceRank } from "../rank.ts";
import { batchOf, type ModelSpec, modelOf } from "./models.ts";
import { averageGradients, optimizerFor, type Trained, trainedOf } from "./training.ts";

/** Which two layers, what they compute in and how long. */
export interface ByHandSpec {
  readonly model: Extract<ModelSpec, { readonly kind: "pair" }>;
  readonly dtype: "bfloat16" | "float16";
  readonly steps: number;
}

/** Trains two layers; gradients are averaged in float32. */
export async function trainByHand(
  rank: ConformanceRank,
  { model: spec, dtype, steps }: ByHandSpec,
): Promise<Trained> {
  const model = await modelOf(spec).to(rank.device);
  const optimizer: AdamW = optimizerFor(model);
  const [w1, b1, w2, b2] = model.parameters();
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const loss = await rank.device.scope(async () => {
      const { x, y } = batchOf(rank, spec, step);
      const [low1, bias1, low2, bias2] = [w1!, b1!, w2!, b2!].map((weight) => ops.cast(weight, dtype));
      const hidden = ops.relu(ops.linear(ops.cast(x, dtype), low1!, bias1));
      const error = ops.mseLoss(ops.cast(ops.linear(hidden, low2!, bias2), "float32"), y);
      await error.backward();
      return new Float64Array([await error.item()]);
    });
    await averageGradients(rank, model);
    optimizer.step();
    if (step < steps - 1) optimizer.zeroGrad();
    await rank.collective.allReduce(loss, "avg", "float64").wait();
    losses.push(loss[0]!);
  }
  return await trainedOf(rank, model, optimizer, losses, []);
}

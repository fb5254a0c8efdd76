/**
 * One optimizer step of a training run.
 *
 * @module
 */
import type { Collective } from "../../core/contracts/collective.ts";
import { allReduce } from "../../core/engine/all-reduce.ts";
import { clipGradNorm } from "../../core/engine/clip.ts";
import { setRequiresGradientSync } from "../../core/engine/shard-module.ts";
import type { Parameter } from "../../core/nn/parameter.ts";
import { warmupConstant, warmupCosine } from "../../core/optim/schedule.ts";
import type { TrainConfig } from "./config.ts";
import { type Run, report, tensors } from "./train-run.ts";

/** Reads what a step gave, agrees with the other ranks and reports. Returns whether they agreed to stop. */
export type StepEnd = () => Promise<boolean>;

/**
 * One optimizer step. Its end waits for the device and the other ranks; called after the next step it keeps neither
 * waiting, and reports a step late.
 */
export async function trainStep(run: Run, step: number): Promise<StepEnd> {
  const { context, config, device, model, optimizer } = run;
  const began = performance.now();
  const factor = scheduleOf(config)(step);
  for (const group of optimizer.groups) group.lr = config.optimizer.lr * factor;

  const batch = await run.batches.rows(step);
  const rows = batch.rows / config.accumulation;
  const scale = run.scaler?.scale ?? 1;
  // What the backward pass begins with: the loss scale, shared among microbatches.
  device.lossScale = scale / config.accumulation;
  const losses: Promise<number>[] = [];
  for (let micro = 0; micro < config.accumulation; micro++) {
    setRequiresGradientSync(model.module, micro === config.accumulation - 1);
    await device.scope(async () => {
      const { ids, targets } = tensors(device, batch, micro * rows, rows);
      const mean = await model.module.call(ids, targets);
      // Read while the device goes on.
      losses.push(mean.item());
      await mean.backward({ gradient: device.full([], device.lossScale, { dtype: mean.dtype }) });
    });
  }
  const parameters = model.module.parameters();
  await averageIgnored(parameters, context.collective);
  let gradNorm: number | undefined;
  if (config.clip !== undefined || run.scaler !== undefined) {
    gradNorm = await clipGradNorm(parameters, config.clip ?? Number.POSITIVE_INFINITY, { lossScale: scale });
  }
  const usable = run.scaler === undefined || Number.isFinite(gradNorm);
  if (usable) optimizer.step();
  run.scaler?.update(usable);
  optimizer.zeroGrad();
  const memory = device.backend.memory.report();
  return async () => {
    // Losses first: a step that was read late does not wait for the work that followed.
    const loss = (await Promise.all(losses)).reduce((sum, share) => sum + share / config.accumulation, 0);
    if (!config.lateLoss) await device.backend.flush();
    const sums = new Float64Array([loss, context.stopRequested() ? 1 : 0]);
    const peaks = new Float64Array([memory.peakTotal]);
    await context.collective.allReduce(sums, "sum", "float64").wait();
    await context.collective.allReduce(peaks, "max", "float64").wait();
    const now = performance.now();
    const seconds = (now - Math.max(began, run.lastReport.at)) / 1000;
    run.lastReport.at = now;
    const meanLoss = sums[0]! / context.worldSize;
    run.losses.add(step + 1, meanLoss);
    report(context, {
      kind: "step",
      step: step + 1,
      loss: meanLoss,
      gradNorm,
      lr: config.optimizer.lr * factor,
      tokensPerSecond: (batch.rows * batch.seqLen * context.worldSize) / seconds,
      memory,
      peakMemory: peaks[0]!,
    });
    return sums[1]! > 0;
  };
}

/** Parameters that sharding leaves alone are whole on every rank, and equal: as long as their gradients are averaged. */
async function averageIgnored(parameters: readonly Parameter[], ranks: Collective): Promise<void> {
  for (const { manager, grad } of parameters) {
    if (manager === undefined && grad !== undefined) await allReduce(ranks, grad, "avg").wait();
  }
}

function scheduleOf(config: TrainConfig): (step: number) => number {
  const { warmupSteps, kind } = config.schedule;
  return kind === "cosine"
    ? warmupCosine({ warmupSteps, totalSteps: config.steps })
    : warmupConstant({ warmupSteps });
}

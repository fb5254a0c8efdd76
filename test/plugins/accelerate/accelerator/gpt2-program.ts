/** A rank's program: trains gpt2-tiny by an accelerator on the tokens of PyTorch's reference run. */

import { FORMAT } from "../../../../core/contracts/plugin.ts";
import {
  Accelerator,
  DataLoader,
  FullyShardedDataParallelPlugin,
  MODEL,
  ops,
  optim,
  registry,
} from "../../../../mod.ts";
import { tinyModel } from "../../../support/tiny-model.ts";

/** How the run differs. */
export interface GPT2Run {
  readonly version: 1 | 2;
  readonly accumulation: number;
  readonly backend: string;
}

/** Steps of the reference that are repeated. */
export const STEPS = 8;

/** Losses and norms of each step. */
export async function main(_: unknown, run: GPT2Run): Promise<readonly (readonly [number, number])[]> {
  const fixture = tinyModel("gpt2-tiny");
  const safetensors = registry.get(FORMAT, "safetensors");
  const tokens = await safetensors.open(fixture.file("tokens.safetensors"));
  const [, batch = 0, width = 0] = tokens.info("tokens").shape;
  const all = Int32Array.from((await tokens.read("tokens")) as BigInt64Array, Number);
  const rows = Array.from({ length: STEPS * batch }, (_, i) => all.subarray(i * width, (i + 1) * width));
  const weights = await safetensors.open(fixture.file("model/model.safetensors"));
  const settings = fixture.json<{ lr: number; wd: number; betas: [number, number]; clip: number }>(
    "case.json",
  );

  await using accelerator = await Accelerator.create({
    backend: run.backend,
    fsdpPlugin: new FullyShardedDataParallelPlugin({ fsdpVersion: run.version }),
    gradientAccumulationSteps: run.accumulation,
    splitBatches: true,
  });
  const gpt2 = registry.get(MODEL, "gpt2").create(fixture.json("model/config.json"), weights);
  const adamw = new optim.AdamW(gpt2.module.parameters(), {
    lr: settings.lr,
    weightDecay: settings.wd,
    betas: settings.betas,
  });
  const data = new DataLoader(rows, { batchSize: batch / run.accumulation });
  const [{ module }, optimizer, loader] = await accelerator.prepare(gpt2, adamw, data);
  await weights.close();
  await tokens.close();

  const steps: [number, number][] = [];
  let loss = 0;
  for await (const ids of loader) {
    await accelerator.accumulate(module, async () => {
      const inputs = ops.slice(ids, 1, 0, width - 1);
      const mean = await module.call(inputs, ops.slice(ids, 1, 1, width));
      loss += (await accelerator.reduce(await mean.item(), "mean")) / run.accumulation;
      await accelerator.backward(mean);
      const norm = await accelerator.clipGradNorm(module.parameters(), settings.clip);
      await optimizer.step();
      optimizer.zeroGrad();
      if (norm === undefined) return;
      steps.push([loss, norm]);
      loss = 0;
    });
  }
  return steps;
}

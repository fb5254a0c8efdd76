/**
 * Run by Deno in `deno.test.ts`: four ranks, two replicas of two shards, with a list group, checkpointed activations,
 * shards on another device, accumulation and a full state dict. Prints one line of JSON.
 *
 * @module
 */
import { cpuBackend } from "../../../backends/cpu/mod.ts";
import { clipGradNorm } from "../../../core/engine/clip.ts";
import { getModelStateDict } from "../../../core/engine/model-state-dict.ts";
import { traceUnits } from "../../../core/engine/trace.ts";
import { checkpoint } from "../../../core/nn/mod.ts";
import { AdamW } from "../../../core/optim/mod.ts";
import { initDeviceMesh } from "../../../core/runtime/device-mesh.ts";
import { Device } from "../../../core/tensor/device.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import { fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { Stack } from "../../support/models.ts";
import { runRanks } from "../../support/ranks.ts";

const results = await runRanks(4, async ({ rank, device, collective }) => {
  const host = new Device(await cpuBackend.create({ settings: { matmul: "plain" } }), { seed: 7 });
  const mesh = await initDeviceMesh(collective, [2, 2]);
  const options = { mesh, offloadPolicy: { device: host } };
  const stack = new Stack({ layers: 2, features: 3, width: 4, hidden: 5 });
  for (const block of stack.blocks) fullyShard(checkpoint(block), options);
  fullyShard([stack.inner, stack.outer], options);
  const model = await fullyShard(stack, options).to(device);
  let events = 0;
  traceUnits(model, () => events++);
  const optimizer = new AdamW(model.parameters(), { lr: 0.01 });
  const losses: number[] = [];
  for (let micro = 0; micro < 4; micro++) {
    model.setRequiresGradientSync(micro % 2 === 1);
    await device.scope(async () => {
      const loss = ops.mean(ops.pow(await model.call(device.full([2, 3], 0.1 * (rank + micro))), 2));
      await loss.backward();
      losses.push(await loss.item());
    });
    if (micro % 2 === 0) continue;
    losses.push(await clipGradNorm(model.parameters(), 0.5));
    optimizer.step();
    optimizer.zeroGrad();
  }
  const dict = await getModelStateDict(model, { fullStateDict: true, cpuOffload: true });
  const weights = Object.entries(dict).map(([name, { data }]) => [name, Array.from(data, Number)]);
  optimizer.dispose();
  model.dispose();
  const left = [device, host].map(({ backend }) => backend.memory.report().currentTotal);
  await host.backend.dispose();
  return { losses, weights, events, left };
});
console.log(JSON.stringify(results));

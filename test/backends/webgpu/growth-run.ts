/**
 * Started by `growth.test.ts`: a thousand training steps over two ranks on one GPU. Prints, as JSON, this process's
 * resident bytes and the ranks' device bytes after each hundred.
 */
import process from "node:process";
import { WebgpuBackend } from "../../../backends/webgpu/backend.ts";
import { webgpuBackend } from "../../../backends/webgpu/mod.ts";
import { ops, optim } from "../../../mod.ts";
import { fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { Stack } from "../../support/models.ts";
import { runRanks } from "../../support/ranks.ts";

const resident: number[] = [];
const device: number[][] = [];
const peaks: number[][] = [];

await runRanks(
  2,
  async ({ rank, device: { backend }, mesh, device: tensors, collective }) => {
    if (!(backend instanceof WebgpuBackend)) throw new TypeError(`a ${backend.name} backend was made`);
    const model = new Stack({ layers: 1, features: 5, width: 8, hidden: 8 });
    for (const block of model.blocks) fullyShard(block, { mesh });
    await fullyShard(model, { mesh }).to(tensors);
    const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-3 });
    optimizer.initState();
    device[rank] = [];
    peaks[rank] = [];
    for (let step = 1; step <= 1000; step++) {
      backend.memory.resetPeak();
      await tensors.scope(async () => {
        const error = ops.mean(ops.mul(await model.call(tensors.ones([2, 5])), tensors.ones([2, 1])));
        await error.backward();
        await error.item();
      });
      optimizer.step();
      optimizer.zeroGrad();
      if (step % 100 !== 0) continue;
      await backend.flush();
      await collective.barrier().wait();
      device[rank].push(backend.reservedBytes + backend.memory.report().currentTotal);
      peaks[rank].push(backend.memory.report().peakTotal);
      if (rank === 0) {
        Bun.gc(true);
        resident.push(process.memoryUsage.rss());
      }
    }
  },
  (options) => webgpuBackend.create({ ...options, settings: {} }),
);
console.log(JSON.stringify({ resident, device, peaks }));
process.exit(0);

import { Accelerator, DataLoader, FullyShardedDataParallelPlugin, nn, ops, optim } from "../../mod.ts";

const samples = Array.from({ length: 200 }, (_, i) => {
  const x = [Math.sin(i), Math.cos(3 * i), Math.sin(i * i)];
  return { x, y: [x[0]! * x[1]! + x[2]!] };
});

await using accelerator = await Accelerator.create({
  fsdpPlugin: new FullyShardedDataParallelPlugin({ forwardPrefetch: true }),
  gradientAccumulationSteps: 2,
  projectDir: process.argv[2] ?? "runs/accelerate",
  totalLimit: 2,
});
const net = new nn.Sequential(new nn.Linear(3, 32), new nn.GELU(), new nn.Linear(32, 1));
const adamw = new optim.AdamW(net.parameters(), { lr: 2e-2 });
const [model, optimizer, scheduler, loader] = await accelerator.prepare(
  net,
  adamw,
  new optim.LRScheduler(adamw, optim.warmupCosine({ warmupSteps: 5, totalSteps: 130 })),
  new DataLoader(samples, { batchSize: 8, shuffle: true }),
);
if (process.argv[3] === "resume") await accelerator.loadState();

while (loader.epoch < 10) {
  let [error, rows] = [0, 0];
  for await (const { x, y } of loader) {
    await accelerator.accumulate(model, async () => {
      const prediction = await model.call(x);
      const difference = ops.sub(prediction.detach(), y);
      const squares = await accelerator.gatherForMetrics(ops.mul(difference, difference));
      error += await ops.sum(squares).item();
      rows += squares.numel;
      await accelerator.backward(ops.mseLoss(prediction, y));
      await accelerator.clipGradNorm(model.parameters(), 1);
      await optimizer.step();
      scheduler.step();
      optimizer.zeroGrad();
    });
  }
  accelerator.print(`epoch ${loader.epoch}: ${rows} samples, error ${(error / rows).toFixed(3)}`);
  if (loader.epoch % 2 === 0) await accelerator.saveState();
}

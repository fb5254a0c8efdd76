import {
  directoryStore,
  fullyShard,
  launch,
  modelState,
  nativeCheckpointer,
  nn,
  ops,
  optim,
  optimizerState,
  type Rank,
} from "fsdp";

/** Trains to `steps`, from the newest checkpoint in `folder` if there is one, and saves each fifth step while it goes on. */
export async function main({ rank, device, mesh, collective }: Rank, args: unknown): Promise<number> {
  const { folder, steps } = args as { folder: string; steps: number };
  const model = new nn.Sequential(new nn.Linear(4, 32), new nn.GELU(), new nn.Linear(32, 1));
  await fullyShard(model, { mesh }).to(device);
  const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-2 });
  const checkpointer = nativeCheckpointer(directoryStore(folder), { keepLast: 2 });
  const tensors = () => [...modelState(model, collective), ...optimizerState(model, optimizer, collective)];

  let step = 0;
  let loss = 0;
  if ((await checkpointer.list()).length > 0) {
    step = (await checkpointer.load({ tensors: tensors() }, "latest", collective)).info.step;
  }
  while (step < steps) {
    await device.scope(async () => {
      const x = device.tensor(
        new Float32Array(32).map((_, i) => Math.sin(i + step)),
        { shape: [8, 4] },
      );
      const mean = ops.mseLoss(await model.call(x), ops.sum(x, { dim: 1, keepDim: true }));
      await mean.backward();
      loss = await mean.item();
    });
    optimizer.step();
    optimizer.zeroGrad();
    step++;
    if (step % 5 !== 0) continue;
    const state = { tensors: tensors(), values: { lr: 1e-2 }, rankValues: { rank } };
    const pending = await checkpointer.saveAsync(state, step, collective);
    if (step === steps) await pending.wait();
  }
  await checkpointer.close();
  return loss;
}

if (import.meta.main) {
  const folder = process.argv[2]!;
  await launch(import.meta.url, { worldSize: 2, args: { folder, steps: 10 } });
  const [resumed] = await launch(import.meta.url, { worldSize: 3, args: { folder, steps: 20 } });
  console.log(`step 20: loss ${(resumed as number).toFixed(3)}`);
}

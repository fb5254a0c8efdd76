import {
  convertToFloat8Training,
  fullyShard,
  launch,
  nn,
  ops,
  optim,
  precomputeFloat8DynamicScaleForFsdp,
  type Rank,
} from "../../../mod.ts";

export async function main({ rank, device, mesh }: Rank): Promise<void> {
  const model = new nn.Sequential(new nn.Linear(8, 64), new nn.GELU(), new nn.Linear(64, 1));
  convertToFloat8Training(model, { recipe: "tensorwise" });
  await fullyShard(model, { mesh }).to(device);
  const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-2 });
  for (let step = 1; step <= 200; step++) {
    await precomputeFloat8DynamicScaleForFsdp(model);
    await device.scope(async () => {
      const x = ops.slice(device.randn([64, 8]), 0, rank * 32, rank * 32 + 32);
      const loss = ops.mseLoss(await model.call(x), ops.sum(ops.mul(x, x), { dim: 1, keepDim: true }));
      await loss.backward();
      if (rank === 0 && step % 50 === 0) console.log(`step ${step}: loss ${(await loss.item()).toFixed(3)}`);
    });
    optimizer.step();
    optimizer.zeroGrad();
  }
}

if (import.meta.main) await launch(import.meta.url, { worldSize: 2 });

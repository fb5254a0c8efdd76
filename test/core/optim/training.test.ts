import { expect, test } from "bun:test";
import * as nn from "../../../core/nn/mod.ts";
import { AdamW, LRScheduler, SGD, warmupCosine } from "../../../core/optim/mod.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import { testDevice } from "../tensor/gradcheck.ts";

const SEED = 20;
const STEPS = 150;

/** Trains a small net to tell the quadrants of the plane apart; losses by step and memory after it. */
async function train(
  kind: "adamw" | "sgd",
): Promise<{ losses: number[]; bytes: Set<number>; peaks: Set<number> }> {
  const device = await testDevice(SEED);
  const model = await new nn.Sequential(
    new nn.Linear(2, 16),
    new nn.GELU(),
    new nn.LayerNorm(16),
    new nn.Linear(16, 4),
  ).to(device);
  const optimizer =
    kind === "adamw"
      ? new AdamW(model.parameters(), { lr: 0.02 })
      : new SGD(model.parameters(), { lr: 0.3, momentum: 0.9, nesterov: true });
  const scheduler = new LRScheduler(
    optimizer,
    warmupCosine({ warmupSteps: 5, totalSteps: STEPS, minRatio: 0.1 }),
  );
  const x = device.randn([64, 2]);
  const points = await x.data();
  const targets = device.tensor(
    Int32Array.from(
      { length: 64 },
      (_, i) => (points[2 * i]! > 0 ? 1 : 0) + (points[2 * i + 1]! > 0 ? 2 : 0),
    ),
  );
  const losses: number[] = [];
  const bytes = new Set<number>();
  const peaks = new Set<number>();
  for (let step = 0; step < STEPS; step++) {
    device.backend.memory.resetPeak();
    const loss = ops.crossEntropy(await model.call(x), targets);
    await loss.backward();
    optimizer.step();
    scheduler.step();
    optimizer.zeroGrad();
    losses.push(await loss.item());
    bytes.add(device.backend.memory.report().currentTotal);
    // The first step has no earlier loss lying about, nor momenta before its end.
    if (step > 0) peaks.add(device.backend.memory.report().peakTotal);
  }
  await device.backend.dispose();
  return { losses, bytes, peaks };
}

for (const kind of ["adamw", "sgd"] as const) {
  test(`a small net learns with ${kind}, seed ${SEED}, in constant memory, the same in every run`, async () => {
    const first = await train(kind);
    expect(first.losses[0]).toBeGreaterThan(1);
    expect(first.losses.at(-1)!).toBeLessThan(0.15);
    expect(first.bytes.size).toBe(1);
    expect(first.peaks.size).toBe(1);
    expect((await train(kind)).losses).toEqual(first.losses);
  });
}

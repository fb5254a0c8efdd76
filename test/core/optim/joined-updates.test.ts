import { expect, test } from "bun:test";
import type { Backend } from "../../../core/contracts/backend.ts";
import type { Kernels } from "../../../core/contracts/kernels.ts";
import { AdamW } from "../../../core/optim/mod.ts";
import { Device } from "../../../core/tensor/device.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import { fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { Stack } from "../../support/models.ts";
import { runRanks } from "../../support/ranks.ts";

/** The backend, with its AdamW calls counted. */
function counting(backend: Backend, count: () => void): Backend {
  const kernels: Kernels = {
    ...backend.kernels,
    adamw: (args) => {
      count();
      backend.kernels.adamw(args);
    },
  };
  return new Proxy(backend, {
    get: (target, key) => {
      if (key === "kernels") return kernels;
      const value: unknown = Reflect.get(target, key);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** Trains two steps; `order` puts the parameters into the optimizer's order. */
function train(order: <T>(parameters: T[]) => T[]) {
  return runRanks(2, async ({ device: { backend }, mesh }) => {
    let calls = 0;
    const device = new Device(
      counting(backend, () => calls++),
      { seed: 3 },
    );
    const model = new Stack({ layers: 2, features: 4, width: 6, hidden: 8 });
    for (const block of model.blocks) fullyShard(block, { mesh });
    await fullyShard(model, { mesh }).to(device);
    const optimizer = new AdamW(order(model.parameters()), { lr: 0.1 });
    for (let step = 0; step < 2; step++) {
      await device.scope(async () => {
        const out = await model.call(device.ones([3, 4]));
        await ops.mean(ops.mul(out, out)).backward();
      });
      optimizer.step();
      optimizer.zeroGrad();
    }
    const weights = [];
    for (const { local } of model.parameters()) weights.push(Array.from(await local.data(), Number));
    optimizer.dispose();
    expect(backend.memory.report().current.optimizer).toBe(0);
    return { calls, weights };
  });
}

test("what follows each other in memory is updated by one call, to the same bits as one by one", async () => {
  const joined = await train((parameters) => parameters);
  const single = await train((parameters) => parameters.toReversed());
  for (const [rank, { calls, weights }] of joined.entries()) {
    expect(weights).toEqual(single[rank]!.weights);
    // Two blocks, and the root's two layers, which lie apart only in the model's order.
    expect(calls).toBeLessThanOrEqual(2 * 4);
    expect(single[rank]!.calls).toBeGreaterThan(2 * calls);
  }
});

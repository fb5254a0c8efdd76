import { describe, expect, test } from "bun:test";
import { clipGradNorm } from "../../../core/engine/clip.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Stack } from "../../support/models.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";

import { batch, build } from "./stack-run.ts";

describe("clipGradNorm", () => {
  const gradientsOf = async (rank: TestRank, scale: number, clip: (model: Stack) => Promise<number>) => {
    const model = build(rank, {});
    await model.to(rank.device);
    await rank.device.scope(async () => {
      const loss = ops.mean(await model.call(batch(rank, 0).x));
      await loss.backward({ gradient: rank.device.full([], scale) });
    });
    const norm = await clip(model);
    const gradients = await Promise.all(model.parameters().map((p) => p.grad!.data()));
    return { norm, gradients };
  };

  test("takes a loss scale out of norm and gradients", async () => {
    const [plain] = await runRanks(2, (rank) =>
      gradientsOf(rank, 1, (model) => clipGradNorm(model.parameters(), 0.1)),
    );
    const [scaled] = await runRanks(2, (rank) =>
      gradientsOf(rank, 1024, (model) => clipGradNorm(model.parameters(), 0.1, { lossScale: 1024 })),
    );
    expect(scaled!.norm).toBeCloseTo(plain!.norm, 6);
    for (const [i, gradient] of scaled!.gradients.entries()) {
      for (const [j, value] of (gradient as Float32Array).entries()) {
        expect(value).toBeCloseTo((plain!.gradients[i] as Float32Array)[j]!, 6);
      }
    }
  });

  test("tells every rank of an overflow on one of them, and leaves the gradients to be dropped", async () => {
    const results = await runRanks(2, (rank) =>
      gradientsOf(rank, 1, async (model) => {
        if (rank.rank === 1) {
          const { span, device } = model.blocks[0]!.up.weight.grad!;
          device.backend.kernels.fill(span, Number.POSITIVE_INFINITY);
        }
        return await clipGradNorm(model.parameters(), 0.1, { lossScale: 2 });
      }),
    );
    for (const { norm } of results) expect(Number.isFinite(norm)).toBe(false);
  });

  for (const normType of [1, 2, 3, Number.POSITIVE_INFINITY]) {
    test(`with order ${normType} is one norm over all parameters on all ranks, for any subset of them too`, async () => {
      const normOf = (worldSize: number, pick: (model: Stack) => ReturnType<Stack["parameters"]>) =>
        runRanks(worldSize, async (rank) => {
          const model = build(rank, {});
          await model.to(rank.device);
          await rank.device.scope(async () => {
            const { x, y } = batch(rank, 0);
            await ops.mseLoss(await model.call(x), y).backward();
          });
          return await clipGradNorm(pick(model), 1e9, { normType });
        });
      for (const pick of [
        (m: Stack) => m.parameters(),
        (m: Stack) => [m.outer.bias!, m.blocks[1]!.up.weight],
      ]) {
        const [single] = await normOf(1, pick);
        for (const norm of await normOf(4, pick)) expect(norm).toBeCloseTo(single!, 5);
      }
    });
  }

  test("refuses norms, bounds and scales that are not positive", async () => {
    await expect(clipGradNorm([], 0)).rejects.toThrow(/maxNorm 0/);
    await expect(clipGradNorm([], 1, { normType: -1 })).rejects.toThrow(/normType -1/);
    await expect(clipGradNorm([], 1, { lossScale: 0 })).rejects.toThrow(/lossScale 0/);
  });
});

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import * as nn from "../../../core/nn/mod.ts";
import type { Device } from "../../../core/tensor/device.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import { bytesOn, testDevice, valuesOf } from "../tensor/gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

describe("RotaryEmbedding", () => {
  test("turns the pair (d, d + dim / 2) of the head at place t by t / theta^(2 d / dim)", async () => {
    const [time, dim, theta] = [5, 4, 100];
    const layer = new nn.RotaryEmbedding(nn.rotaryFrequencies(dim, theta));
    using x = device.ones([1, time, 1, dim], { dtype: "float64" });
    using y = await layer.call(x);
    const found = await valuesOf(y);
    for (let t = 0; t < time; t++) {
      for (let d = 0; d < 2; d++) {
        const angle = t / theta ** ((2 * d) / dim);
        expect(found[t * dim + d]!).toBeCloseTo(Math.cos(angle) - Math.sin(angle), 5);
        expect(found[t * dim + d + 2]!).toBeCloseTo(Math.cos(angle) + Math.sin(angle), 5);
      }
    }
  });

  test("keeps one table a device, which grows with the longest sequence and serves shorter ones", async () => {
    const layer = new nn.RotaryEmbedding(nn.rotaryFrequencies(8));
    const empty = bytesOn(device);
    const run = async (time: number): Promise<number> => {
      await device.scope(async () => void (await layer.call(device.ones([2, time, 1, 8]))));
      return bytesOn(device) - empty;
    };
    const table = (time: number): number => 2 * 4 * time * 4;
    expect(await run(3)).toBe(table(4));
    expect(await run(4)).toBe(table(4));
    expect(await run(5)).toBe(table(8));
    expect(await run(2)).toBe(table(8));
    expect(await run(0)).toBe(table(8));
  });

  test("a backward pass works after the table grew", async () => {
    const x = device.tensor([[[1, 2, 3, 4]], [[5, 6, 7, 8]]], { requiresGrad: true });
    const layer = new nn.RotaryEmbedding(nn.rotaryFrequencies(4));
    const y = await layer.call(x);
    await device.scope(async () => void (await layer.call(device.ones([9, 1, 4]))));
    await ops.sum(y).backward();
    expect((await valuesOf(x.grad!)).slice(0, 4)).toEqual([1, 1, 1, 1]);
    x.dispose();
  });
});

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import * as nn from "../../../core/nn/mod.ts";
import type { Device } from "../../../core/tensor/device.ts";
import { gradcheck, testDevice, valuesOf } from "../tensor/gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

describe("RMSNorm", () => {
  test("begins as ones, has PyTorch's names, and gives its input's gradient", async () => {
    const layer = await new nn.RMSNorm(4, { dtype: "float64", eps: 0.1 }).to(device);
    expect([...layer.namedParameters()].map(([name]) => name)).toEqual(["weight"]);
    expect(await valuesOf(layer.weight)).toEqual([1, 1, 1, 1]);
    layer.weight.requiresGrad = false;
    await gradcheck(device, (x) => layer.call(x!), [{ shape: [2, 4] }]);
  });
});

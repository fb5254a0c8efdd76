import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { ShapeError } from "../../../../core/contracts/errors.ts";
import type { Device } from "../../../../core/tensor/device.ts";
import * as ops from "../../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../../core/tensor/tensor.ts";
import { bytesOn, gradcheck, testDevice, valuesOf } from "../gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

const TWINS: Readonly<Record<ops.GateActivation, (x: Tensor) => Tensor>> = {
  silu: ops.silu,
  gelu: (x) => ops.gelu(x),
  geluTanh: (x) => ops.gelu(x, "tanh"),
  relu: ops.relu,
  sigmoid: ops.sigmoid,
};

describe("gated", () => {
  for (const [name, twin] of Object.entries(TWINS)) {
    const activation = name as ops.GateActivation;
    test(`${activation} equals the activation times the value, and its gradients are right`, async () => {
      for (const shape of [[], [0], [2, 3]]) {
        await gradcheck(device, (gate, x) => ops.gated(gate!, x!, activation), [{ shape }, { shape }]);
      }
      await device.scope(async () => {
        const [gate, x] = [0, 1].map(() => device.randn([7], { dtype: "float64" })) as [Tensor, Tensor];
        const expected = await valuesOf(ops.mul(twin(gate), x));
        const found = await valuesOf(ops.gated(gate, x, activation));
        for (const [i, value] of found.entries()) expect(value).toBeCloseTo(expected[i]!, 12);
      });
    });
  }

  test("a tensor may gate itself, and a gate that others hold keeps its values", async () => {
    await gradcheck(device, (x) => ops.gated(x!, x!), [{ shape: [5] }]);
    await device.scope(async () => {
      const x = device.randn([4], { dtype: "float64", requiresGrad: true });
      const gate = ops.mul(x, 2);
      const before = await valuesOf(gate);
      gate.keep();
      await ops.sum(ops.gated(gate, x)).backward();
      expect(await valuesOf(gate)).toEqual(before);
      gate.dispose();
    });
  });

  test("the gradient of a gate takes its place: backward needs no memory beyond gradients that come", async () => {
    const n = 1000;
    await device.scope(async () => {
      const x = device.randn([n], { requiresGrad: true });
      const y = device.randn([n], { requiresGrad: true });
      const loss = await (async () => {
        const gate = ops.mul(x, 2);
        const value = ops.mul(y, 3);
        const out = ops.sum(ops.gated(gate, value));
        gate.dispose();
        value.dispose();
        return out;
      })();
      device.backend.memory.resetPeak();
      const before = bytesOn(device);
      await loss.backward();
      // The gradient of the sum, which becomes the value's, and the two leaves'.
      expect(device.backend.memory.report().peakTotal - before).toBeLessThan(4 * n * 3);
    });
  });

  test("different shapes or dtypes are refused with both in the message", () => {
    using x = device.zeros([2, 3]);
    expect(() => ops.gated(x, device.zeros([3]))).toThrow("float32 [2, 3], float32 [3]");
    expect(() => ops.gated(x, device.zeros([2, 3], { dtype: "float64" }))).toThrow(ShapeError);
  });
});

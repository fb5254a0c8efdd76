import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ShapeError } from "../../../../core/contracts/errors.ts";
import type { Device } from "../../../../core/tensor/device.ts";
import * as ops from "../../../../core/tensor/ops/mod.ts";
import { gradcheck, testDevice, valuesOf } from "../gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

describe("layerNorm", () => {
  test("equals its definition over the last dim, values and gradients, with and without bias", async () => {
    const extents = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 2 });
    await fc.assert(
      fc.asyncProperty(extents, fc.integer({ min: 1, max: 5 }), fc.boolean(), async (lead, n, biased) => {
        const shape = [...lead, n];
        const inputs = [{ shape }, { shape: [n] }, ...(biased ? [{ shape: [n] }] : [])];
        await gradcheck(device, (x, weight, bias) => ops.layerNorm(x!, weight!, bias, 0.1), inputs);
        await device.scope(async () => {
          const [x, weight, bias] = inputs.map((input) => device.randn(input.shape, { dtype: "float64" }));
          const centred = ops.sub(x!, ops.mean(x!, { dim: -1, keepDim: true }));
          const variance = ops.mean(ops.mul(centred, centred), { dim: -1, keepDim: true });
          const normal = ops.div(centred, ops.sqrt(ops.add(variance, 0.1)));
          const scaled = ops.mul(normal, weight!);
          const expected = await valuesOf(bias === undefined ? scaled : ops.add(scaled, bias));
          const found = await valuesOf(ops.layerNorm(x!, weight!, bias, 0.1));
          for (const [i, value] of found.entries()) expect(value).toBeCloseTo(expected[i]!, 10);
        });
      }),
      { numRuns: 12 },
    );
  });

  test("a weight or bias of another extent or dtype is refused, with all shapes in the message", () => {
    using x = device.zeros([2, 3]);
    using weight = device.zeros([3]);
    expect(() => ops.layerNorm(x, device.zeros([2]))).toThrow("float32 [2, 3], float32 [2]");
    expect(() => ops.layerNorm(x, weight, device.zeros([3], { dtype: "float64" }))).toThrow(ShapeError);
    expect(() => ops.layerNorm(device.zeros([]), weight)).toThrow(ShapeError);
  });
});

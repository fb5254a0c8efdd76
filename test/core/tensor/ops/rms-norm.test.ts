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

describe("rmsNorm", () => {
  test("equals its definition over the last dim, values and gradients", async () => {
    const extents = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 2 });
    await fc.assert(
      fc.asyncProperty(extents, fc.integer({ min: 1, max: 5 }), async (lead, n) => {
        const inputs = [{ shape: [...lead, n] }, { shape: [n] }];
        await gradcheck(device, (x, weight) => ops.rmsNorm(x!, weight!, 0.1), inputs);
        await device.scope(async () => {
          const [x, weight] = inputs.map((input) => device.randn(input.shape, { dtype: "float64" }));
          const square = ops.mean(ops.mul(x!, x!), { dim: -1, keepDim: true });
          const expected = await valuesOf(ops.mul(ops.div(x!, ops.sqrt(ops.add(square, 0.1))), weight!));
          const found = await valuesOf(ops.rmsNorm(x!, weight!, 0.1));
          for (const [i, value] of found.entries()) expect(value).toBeCloseTo(expected[i]!, 10);
        });
      }),
      { numRuns: 12 },
    );
  });

  test("a weight of another extent or dtype is refused, with both shapes in the message", () => {
    using x = device.zeros([2, 3]);
    expect(() => ops.rmsNorm(x, device.zeros([2]))).toThrow("float32 [2, 3], float32 [2]");
    expect(() => ops.rmsNorm(x, device.zeros([3], { dtype: "float64" }))).toThrow(ShapeError);
    expect(() => ops.rmsNorm(device.zeros([]), device.zeros([]))).toThrow(ShapeError);
  });
});

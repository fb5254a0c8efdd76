import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ShapeError } from "../../../../core/contracts/errors.ts";
import type { Device } from "../../../../core/tensor/device.ts";
import * as ops from "../../../../core/tensor/ops/mod.ts";
import { gradcheck, shapes, testDevice, valuesOf } from "../gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

const cases = shapes
  .filter((shape) => shape.length > 0)
  .chain((shape) =>
    fc.record({ shape: fc.constant(shape), dim: fc.integer({ min: -shape.length, max: shape.length - 1 }) }),
  );

describe("softmax", () => {
  test("softmax and logSoftmax along any dim equal their definition, values and gradients", async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ shape, dim }) => {
        await gradcheck(device, (x) => ops.softmax(x, dim), [{ shape }]);
        await gradcheck(device, (x) => ops.logSoftmax(x, dim), [{ shape }]);
        await device.scope(async () => {
          const x = device.randn(shape, { dtype: "float64" });
          const powers = ops.exp(x);
          const plain = await valuesOf(ops.div(powers, ops.sum(powers, { dim: dim, keepDim: true })));
          const soft = await valuesOf(ops.softmax(x, dim));
          const log = await valuesOf(ops.logSoftmax(x, dim));
          for (const [i, expected] of plain.entries()) {
            expect(soft[i]).toBeCloseTo(expected, 12);
            expect(log[i]).toBeCloseTo(Math.log(expected), 12);
          }
        });
      }),
      { numRuns: 15 },
    );
  });

  test("large inputs do not overflow", async () => {
    using x = device.tensor([1000, 999, -1000]);
    using y = ops.softmax(x);
    const [first, second, third] = await valuesOf(y);
    expect(first).toBeCloseTo(1 / (1 + Math.exp(-1)), 6);
    expect(first! + second!).toBeCloseTo(1, 6);
    expect(third).toBe(0);
  });

  test("a dim that is not there is refused by the operation's name", () => {
    using x = device.zeros([2]);
    expect(() => ops.softmax(x, 1)).toThrow("softmax() failed: dim 1");
    expect(() => ops.logSoftmax(device.zeros([]))).toThrow(ShapeError);
  });
});

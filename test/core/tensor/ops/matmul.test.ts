import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ShapeError } from "../../../../core/contracts/errors.ts";
import type { Device } from "../../../../core/tensor/device.ts";
import * as ops from "../../../../core/tensor/ops/mod.ts";
import { numelOf, type Shape } from "../../../../core/tensor/shape.ts";
import type { Tensor } from "../../../../core/tensor/tensor.ts";
import { broadcasts, bytesOn, clearOfZero, gradcheck, leaf, testDevice, valuesOf } from "../gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

const extent = fc.integer({ min: 0, max: 3 });

function numbers(shape: Shape, from: number): number[] {
  return Array.from({ length: numelOf(shape) }, (_, i) => clearOfZero(from + i));
}

describe("matmul", () => {
  test("broadcasts leading dims like elementwise operations, with gradients summed back", async () => {
    await fc.assert(
      fc.asyncProperty(broadcasts, extent, extent, extent, async ({ whole, a, b }, m, k, n) => {
        const [left, right] = [
          [...a, m, k],
          [...b, k, n],
        ];
        await gradcheck(device, ops.matmul, [{ shape: left }, { shape: right }]);
        using x = device.tensor(Float64Array.from(numbers(left, 0)), { shape: left });
        using y = device.tensor(Float64Array.from(numbers(right, 9)), { shape: right });
        await device.scope(async () => {
          const z = ops.matmul(x, y);
          expect(z.shape).toEqual([...whole, m, n]);
          // The same sum of products, made of elementwise operations.
          const wide = ops.expand(ops.reshape(x, [...a, m, k, 1]), [...whole, m, k, n]);
          const tall = ops.expand(ops.reshape(y, [...b, 1, k, n]), [...whole, m, k, n]);
          const expected = await valuesOf(ops.sum(ops.mul(wide, tall), { dim: -2 }));
          for (const [i, found] of (await valuesOf(z)).entries()) expect(found).toBeCloseTo(expected[i]!, 12);
        });
      }),
      { numRuns: 10 },
    );
  });

  test("refuses vectors, inner extents that differ, leading dims that do not broadcast and mixed dtypes", () => {
    const zeros = (...shape: number[]) => device.zeros(shape);
    expect(() => ops.matmul(zeros(3), zeros(3, 2))).toThrow(ShapeError);
    expect(() => ops.matmul(zeros(2, 3), zeros(2, 3))).toThrow("allowed are [..., m, k] times [..., k, n]");
    expect(() => ops.matmul(zeros(2, 1, 3), zeros(3, 3, 1))).toThrow("do not broadcast");
    expect(() => ops.matmul(zeros(1, 1), device.zeros([1, 1], { dtype: "float64" }))).toThrow(ShapeError);
  });
});

describe("linear", () => {
  for (const weightInOut of [false, true]) {
    test(`equals matmul and add, with a weight of ${weightInOut ? "[in, out]" : "[out, in]"}`, async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(extent, { maxLength: 2 }),
          fc.integer({ min: 1, max: 3 }),
          extent,
          fc.boolean(),
          async (lead, inner, columns, biased) => {
            const shape = weightInOut ? [inner, columns] : [columns, inner];
            const inputs = [
              { shape: [...lead, inner] },
              { shape },
              ...(biased ? [{ shape: [columns] }] : []),
            ];
            await gradcheck(device, (x, w, b) => ops.linear(x!, w!, b, { weightInOut }), inputs);
            using x = device.tensor(Float64Array.from(numbers(inputs[0]!.shape, 0)), inputs[0]!);
            using w = device.tensor(Float64Array.from(numbers(shape, 5)), { shape });
            using b = device.tensor(Float64Array.from(numbers([columns], 3)));
            await device.scope(async () => {
              const y = await valuesOf(ops.linear(x, w, biased ? b : undefined, { weightInOut }));
              const product = ops.matmul(
                x.shape.length === 1 ? ops.reshape(x, [1, inner]) : x,
                weightInOut ? w : ops.transpose(w, 0, 1),
              );
              const expected = await valuesOf(biased ? ops.add(product, b) : product);
              expect(y.length).toBe(expected.length);
              for (const [i, found] of y.entries()) expect(found).toBeCloseTo(expected[i]!, 12);
            });
          },
        ),
        { numRuns: 10 },
      );
    });
  }

  test("an activation equals the operation of its own, values and gradients, with a frozen weight or bias too", async () => {
    const twins = {
      relu: ops.relu,
      silu: ops.silu,
      gelu: (x: Tensor) => ops.gelu(x),
      geluTanh: (x: Tensor) => ops.gelu(x, "tanh"),
    } as const;
    for (const [name, twin] of Object.entries(twins)) {
      const activation = name as keyof typeof twins;
      const inputs = [{ shape: [2, 3] }, { shape: [4, 3] }, { shape: [4] }];
      await gradcheck(device, (x, w, b) => ops.linear(x!, w!, b, { activation }), inputs);
      await device.scope(async () => {
        const [x, w, b] = inputs.map(({ shape }) => device.randn(shape, { dtype: "float64" }));
        const expected = await valuesOf(twin(ops.linear(x!, w!, b)));
        for (const [i, found] of (await valuesOf(ops.linear(x!, w!, b, { activation }))).entries())
          expect(found).toBeCloseTo(expected[i]!, 12);
      });
    }
  });

  test("what an activation was applied to is kept for a backward pass only", async () => {
    using x = device.zeros([5, 3], { requiresGrad: true });
    using w = device.zeros([4, 3]);
    const held = async (): Promise<number> => {
      const before = bytesOn(device);
      using out = ops.linear(x, w, undefined, { activation: "silu" });
      return bytesOn(device) - before - out.byteLength;
    };
    expect(await held()).toBe(5 * 4 * 4);
    expect(await device.noGrad(held)).toBe(0);
  });

  test("a frozen weight does not hold the input until the backward pass", async () => {
    using x = leaf(device, [4, 8], numbers([4, 8], 0));
    using w = device.tensor(Float64Array.from(numbers([2, 8], 0)), { shape: [2, 8] });
    await device.scope(async () => {
      const hidden = ops.mul(x, 2);
      const out = ops.linear(hidden, w);
      const before = bytesOn(device);
      hidden.dispose();
      expect(bytesOn(device)).toBe(before - hidden.byteLength);
      await ops.sum(out).backward();
    });
    expect(x.grad).toBeDefined();
    expect(w.grad).toBeUndefined();
  });

  test("refuses operands that do not fit, with all shapes in the message", () => {
    using x = device.zeros([2, 3]);
    using w = device.zeros([4, 3]);
    using b = device.zeros([3]);
    expect(() => ops.linear(x, w, b)).toThrow("float32 [2, 3], float32 [4, 3], float32 [3]");
    expect(() => ops.linear(x, w, undefined, { weightInOut: true })).toThrow(ShapeError);
    expect(() => ops.linear(x, device.zeros([4, 3], { dtype: "float64" }))).toThrow(ShapeError);
    expect(() => ops.linear(device.zeros([]), w)).toThrow(ShapeError);
  });
});

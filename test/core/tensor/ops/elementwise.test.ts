import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ShapeError } from "../../../../core/contracts/errors.ts";
import type { Device } from "../../../../core/tensor/device.ts";
import * as ops from "../../../../core/tensor/ops/mod.ts";
import { broadcastShapes } from "../../../../core/tensor/shape.ts";
import type { Tensor } from "../../../../core/tensor/tensor.ts";
import { broadcasts, clearOfZero, gradcheck, positive, shapes, testDevice, valuesOf } from "../gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

const UNARY: Record<string, [(x: Tensor) => Tensor, (x: number) => number]> = {
  neg: [ops.neg, (x) => -x],
  abs: [ops.abs, Math.abs],
  exp: [ops.exp, Math.exp],
  tanh: [ops.tanh, Math.tanh],
  sigmoid: [ops.sigmoid, (x) => 1 / (1 + Math.exp(-x))],
  relu: [ops.relu, (x) => Math.max(x, 0)],
  gelu: [ops.gelu, (x) => x * normalCdf(x)],
  "gelu tanh": [
    (x) => ops.gelu(x, "tanh"),
    (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  ],
  silu: [ops.silu, (x) => x / (1 + Math.exp(-x))],
  "add number": [(x) => ops.add(x, 1.5), (x) => x + 1.5],
  "sub number": [(x) => ops.sub(x, 1.5), (x) => x - 1.5],
  "mul number": [(x) => ops.mul(x, -0.7), (x) => x * -0.7],
  "div number": [(x) => ops.div(x, 3), (x) => x / 3],
  square: [(x) => ops.pow(x, 2), (x) => x * x],
};

const POSITIVE: typeof UNARY = {
  log: [ops.log, Math.log],
  sqrt: [ops.sqrt, Math.sqrt],
  "pow number": [(x) => ops.pow(x, -1.5), (x) => x ** -1.5],
};

/** The normal distribution by integrating its density: slow, and independent of any erf. */
function normalCdf(x: number): number {
  const n = 2000;
  let sum = 0;
  for (let i = 0; i <= n; i++) {
    const t = (x * i) / n;
    sum += Math.exp(-0.5 * t * t) * (i === 0 || i === n ? 1 : i % 2 === 1 ? 4 : 2);
  }
  return 0.5 + (sum * x) / (3 * n) / Math.sqrt(2 * Math.PI);
}

describe("unary operations", () => {
  for (const [table, value] of [
    [UNARY, clearOfZero],
    [POSITIVE, positive],
  ] as const) {
    for (const [name, [operation, formula]] of Object.entries(table)) {
      test(`${name} gives its formula's values and gradients at any shape`, async () => {
        await fc.assert(
          fc.asyncProperty(shapes, async (shape) => {
            await gradcheck(device, operation, [{ shape, value }]);
            const n = shape.reduce((a, b) => a * b, 1);
            const given = Array.from({ length: n }, (_, i) => value(i));
            using x = device.tensor(Float64Array.from(given), { shape });
            using y = operation(x);
            expect(y.shape).toEqual(shape);
            for (const [i, found] of (await valuesOf(y)).entries()) {
              expect(Math.abs(found - formula(given[i]!))).toBeLessThan(1e-11);
            }
          }),
          { numRuns: 8 },
        );
      });
    }
  }

  test("abs and relu have gradient 0 at 0", async () => {
    for (const operation of [ops.abs, ops.relu]) {
      using x = device.tensor([0], { requiresGrad: true });
      await operation(x).backward();
      expect(await valuesOf(x.grad!)).toEqual([0]);
    }
  });
});

const BINARY: Record<string, [(a: Tensor, b: Tensor) => Tensor, (a: number, b: number) => number]> = {
  add: [ops.add, (a, b) => a + b],
  sub: [ops.sub, (a, b) => a - b],
  mul: [ops.mul, (a, b) => a * b],
  div: [ops.div, (a, b) => a / b],
  pow: [ops.pow, (a, b) => a ** b],
  maximum: [ops.maximum, Math.max],
  minimum: [ops.minimum, Math.min],
};

describe("binary operations", () => {
  for (const [name, [operation, formula]] of Object.entries(BINARY)) {
    test(`${name} broadcasts, and its gradients are summed back to each operand's shape`, async () => {
      await fc.assert(
        fc.asyncProperty(broadcasts, async ({ whole, a, b }) => {
          await gradcheck(device, operation, [
            { shape: a, value: positive },
            { shape: b, value: positive },
          ]);
          using x = device.full(a, 1.25, { dtype: "float64" });
          using y = device.full(b, 0.5, { dtype: "float64" });
          using z = operation(x, y);
          expect(z.shape).toEqual(broadcastShapes(a, b, "test"));
          expect(z.shape).toEqual(whole);
          for (const found of await valuesOf(z)) expect(found).toBeCloseTo(formula(1.25, 0.5), 12);
        }),
        { numRuns: 12 },
      );
    });
  }

  test("one tensor as both operands gets both gradients", async () => {
    await gradcheck(device, (x) => ops.mul(x, x), [{ shape: [3] }]);
    await gradcheck(device, (x) => ops.div(ops.add(x, 5), x), [{ shape: [3] }]);
  });

  test("maximum and minimum share the gradient of equal elements by halves", async () => {
    for (const operation of [ops.maximum, ops.minimum]) {
      using a = device.tensor([2, 1], { requiresGrad: true });
      using b = device.tensor([2, 1], { requiresGrad: true });
      await ops.sum(operation(a, b)).backward();
      expect(await valuesOf(a.grad!)).toEqual([0.5, 0.5]);
      expect(await valuesOf(b.grad!)).toEqual([0.5, 0.5]);
    }
  });

  test("comparisons give ones and zeros, and no gradient", async () => {
    using a = device.tensor([1, 2, 3], { requiresGrad: true });
    using b = device.tensor([2, 2, 2]);
    for (const [operation, expected] of [
      [ops.less, [1, 0, 0]],
      [ops.equal, [0, 1, 0]],
      [ops.greater, [0, 0, 1]],
    ] as const) {
      using mask = operation(a, b);
      expect(await valuesOf(mask)).toEqual([...expected]);
      expect(mask.requiresGrad).toBe(false);
    }
  });

  test("shapes that do not broadcast and dtypes that differ are refused by name", () => {
    using a = device.zeros([2, 3]);
    using b = device.zeros([4]);
    using c = device.zeros([3], { dtype: "float64" });
    expect(() => ops.add(a, b)).toThrow(
      new ShapeError("add() failed: shapes [2, 3] and [4] do not broadcast"),
    );
    expect(() => ops.mul(a, c)).toThrow('dtypes "float32" and "float64" differ');
    expect(() => ops.where(a, a, c)).toThrow('where() failed: dtypes "float32" and "float64" differ');
  });
});

describe("where", () => {
  test("takes each element from one side, and sends its gradient there", async () => {
    await fc.assert(
      fc.asyncProperty(broadcasts, fc.boolean(), async ({ whole, a, b }, small) => {
        const n = whole.reduce((x, y) => x * y, 1);
        const mask = Int32Array.from({ length: n }, (_, i) => (i * 5) % 3);
        using condition = small ? device.tensor([1]) : device.tensor(mask, { shape: whole });
        await gradcheck(device, (x, y) => ops.where(condition, x, y), [{ shape: a }, { shape: b }]);
      }),
      { numRuns: 12 },
    );
    using condition = device.tensor([1, 0]);
    using y = ops.where(condition, device.tensor([5, 6]), device.tensor([7, 8]));
    expect(await valuesOf(y)).toEqual([5, 8]);
  });
});

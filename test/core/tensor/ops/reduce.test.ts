import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ShapeError } from "../../../../core/contracts/errors.ts";
import type { Device } from "../../../../core/tensor/device.ts";
import * as ops from "../../../../core/tensor/ops/mod.ts";
import { numelOf, type Shape, stridesOf } from "../../../../core/tensor/shape.ts";
import { clearOfZero, distinct, gradcheck, shapes, testDevice, valuesOf } from "../gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

const cases = shapes.chain((shape) =>
  fc.record({
    shape: fc.constant(shape),
    dim: fc.option(fc.subarray([...shape.keys()]), { nil: undefined }),
    keepDim: fc.boolean(),
  }),
);

/** The groups of elements that each result is made of, in the result's order. */
function groups(values: readonly number[], shape: Shape, over: (d: number) => boolean): number[][] {
  const kept = shape.map((extent, d) => (over(d) ? 1 : extent));
  const strides = stridesOf(shape);
  const keptStrides = stridesOf(kept);
  const out: number[][] = Array.from({ length: numelOf(kept) }, () => []);
  for (const [i, value] of values.entries()) {
    const at = shape.reduce(
      (sum, extent, d) => sum + (over(d) ? 0 : (Math.floor(i / strides[d]!) % extent) * keptStrides[d]!),
      0,
    );
    out[at]!.push(value);
  }
  return out;
}

const REDUCTIONS = {
  sum: [ops.sum, (group: number[]) => group.reduce((a, b) => a + b, 0)],
  mean: [ops.mean, (group: number[]) => group.reduce((a, b) => a + b, 0) / group.length],
  max: [ops.max, (group: number[]) => Math.max(...group)],
} as const;

describe("reductions", () => {
  for (const name of ["sum", "mean", "max"] as const) {
    const [operation, formula] = REDUCTIONS[name];
    test(`${name} over any dims gives its formula's values, shape and gradients`, async () => {
      await fc.assert(
        fc.asyncProperty(cases, async ({ shape, dim, keepDim }) => {
          const all = dim === undefined || dim.length === 0;
          const over = (d: number) => all || dim.includes(d);
          const kept = shape.map((extent, d) => (over(d) ? 1 : extent));
          const options = { keepDim, ...(dim === undefined ? {} : { dim }) };
          const empty = shape.some((extent, d) => extent === 0 && over(d)) && numelOf(kept) > 0;
          const value = name === "max" ? distinct : clearOfZero;
          const given = Array.from({ length: numelOf(shape) }, (_, i) => value(i));
          using x = device.tensor(Float64Array.from(given), { shape });
          if (name === "max" && empty) {
            expect(() => operation(x, options)).toThrow(ShapeError);
            return;
          }
          using y = operation(x, options);
          expect(y.shape).toEqual(keepDim ? kept : shape.filter((_, d) => !over(d)));
          const expected = groups(given, shape, over).map(formula);
          for (const [i, found] of (await valuesOf(y)).entries()) {
            if (Number.isNaN(expected[i])) expect(found).toBeNaN();
            else expect(found).toBeCloseTo(expected[i]!, 12);
          }
          if (!(name === "mean" && empty))
            await gradcheck(device, (t) => operation(t, options), [{ shape, value }]);
        }),
        { numRuns: 25 },
      );
    });
  }

  test("negative dims count from the end", async () => {
    using x = device.tensor([
      [1, 2],
      [3, 4],
    ]);
    using rows = ops.sum(x, { dim: -1 });
    expect(await valuesOf(rows)).toEqual([3, 7]);
  });

  test("equal largest elements share the gradient of max evenly", async () => {
    using x = device.tensor([3, 1, 3, 3], { requiresGrad: true });
    await ops.max(x).backward();
    expect(await valuesOf(x.grad!)).toEqual([Math.fround(1 / 3), 0, Math.fround(1 / 3), Math.fround(1 / 3)]);
  });

  test("dims outside the rank or named twice are refused", () => {
    using x = device.zeros([2, 3]);
    expect(() => ops.sum(x, { dim: 2 })).toThrow(ShapeError);
    expect(() => ops.mean(x, { dim: [0, -2] })).toThrow("name a dim twice");
  });
});

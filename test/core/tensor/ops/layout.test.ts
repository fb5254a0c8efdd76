import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ShapeError } from "../../../../core/contracts/errors.ts";
import type { Device } from "../../../../core/tensor/device.ts";
import * as ops from "../../../../core/tensor/ops/mod.ts";
import { numelOf, type Shape, stridesOf } from "../../../../core/tensor/shape.ts";
import type { Tensor } from "../../../../core/tensor/tensor.ts";
import { broadcasts, gradcheck, shapes, testDevice, valuesOf } from "../gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

function counting(shape: Shape): Tensor {
  return device.tensor(
    Float64Array.from({ length: numelOf(shape) }, (_, i) => i),
    { shape },
  );
}

/** Index of every element of `shape`, row-major. */
function indices(shape: Shape): number[][] {
  const strides = stridesOf(shape);
  return Array.from({ length: numelOf(shape) }, (_, i) =>
    shape.map((extent, d) => Math.floor(i / strides[d]!) % extent),
  );
}

function flat(index: readonly number[], shape: Shape): number {
  return index.reduce((sum, i, d) => sum + i * stridesOf(shape)[d]!, 0);
}

describe("reshape", () => {
  test("keeps the elements in order and copies nothing", async () => {
    using x = counting([2, 6]);
    const bytes = device.backend.memory.report().currentTotal;
    using y = ops.reshape(x, [3, -1]);
    expect(y.shape).toEqual([3, 4]);
    expect(await valuesOf(y)).toEqual(await valuesOf(x));
    expect(device.backend.memory.report().currentTotal).toBe(bytes);
    await gradcheck(device, (t) => ops.reshape(t, [6]), [{ shape: [2, 3] }]);
    await gradcheck(device, (t) => ops.reshape(t, [0, 7]), [{ shape: [2, 0] }]);
  });

  test("refuses another element count, two wild extents and one that does not divide", () => {
    using x = counting([2, 6]);
    for (const shape of [[5], [-1, -1], [5, -1], [0, -1], [-2, -6]]) {
      expect(() => ops.reshape(x, shape)).toThrow(ShapeError);
    }
  });
});

describe("permute", () => {
  test("moves element by element, and its gradient moves back", async () => {
    const permutations = shapes.chain((shape) =>
      fc.record({
        shape: fc.constant(shape),
        order: fc.shuffledSubarray([...shape.keys()], { minLength: shape.length }),
      }),
    );
    await fc.assert(
      fc.asyncProperty(permutations, async ({ shape, order }) => {
        using x = counting(shape);
        using y = ops.permute(x, order);
        expect(y.shape).toEqual(order.map((d) => shape[d]!));
        const found = await valuesOf(y);
        for (const index of indices(shape)) {
          expect(
            found[
              flat(
                order.map((d) => index[d]!),
                y.shape,
              )
            ],
          ).toBe(flat(index, shape));
        }
        await gradcheck(device, (t) => ops.permute(t, order), [{ shape }]);
      }),
      { numRuns: 15 },
    );
  });

  test("transpose counts negative dims from the end", async () => {
    using x = counting([2, 3]);
    using y = ops.transpose(x, -1, 0);
    expect(await valuesOf(y)).toEqual([0, 3, 1, 4, 2, 5]);
  });

  test("refuses dims that are no permutation", () => {
    using x = counting([2, 3]);
    for (const dims of [[0], [0, 0], [0, 2], [0, 1, 1], [0.5, 1]]) {
      expect(() => ops.permute(x, dims)).toThrow(ShapeError);
    }
  });
});

describe("slice and concat", () => {
  const cuts = shapes
    .filter((shape) => shape.length > 0)
    .chain((shape) =>
      fc.integer({ min: 0, max: shape.length - 1 }).chain((dim) =>
        fc.record({
          shape: fc.constant(shape),
          dim: fc.constant(dim),
          cut: fc.integer({ min: 0, max: shape[dim]! }),
        }),
      ),
    );

  test("joining the two sides of a cut gives the tensor back, and gradients go where the elements came from", async () => {
    await fc.assert(
      fc.asyncProperty(cuts, async ({ shape, dim, cut }) => {
        const rejoin = (t: Tensor): Tensor =>
          ops.concat([ops.slice(t, dim, 0, cut), ops.slice(t, dim, cut, shape[dim]!)], dim);
        using x = counting(shape);
        await device.scope(async () => {
          const y = rejoin(x);
          expect(y.shape).toEqual(shape);
          expect(await valuesOf(y)).toEqual(await valuesOf(x));
        });
        await gradcheck(device, rejoin, [{ shape }]);
        await gradcheck(device, (t) => ops.slice(t, dim, 0, cut), [{ shape }]);
        await gradcheck(device, (a, b) => ops.concat([a, b, a], dim - shape.length), [
          { shape },
          { shape: shape.with(dim, cut) },
        ]);
      }),
      { numRuns: 12 },
    );
  });

  test("slice refuses ranges outside the extent", () => {
    using x = counting([3]);
    for (const [start, end] of [
      [-1, 2],
      [2, 1],
      [0, 4],
      [0.5, 1],
    ] as const) {
      expect(() => ops.slice(x, 0, start, end)).toThrow(ShapeError);
    }
  });

  test("concat refuses nothing at all, other extents that differ and other dtypes", () => {
    using x = counting([3, 2]);
    using y = counting([3, 3]);
    using z = device.zeros([3, 2]);
    expect(() => ops.concat([], 0)).toThrow(ShapeError);
    expect(() => ops.concat([x, y], 0)).toThrow("does not join");
    expect(() => ops.concat([x, z], 0)).toThrow("does not join");
  });
});

describe("expand", () => {
  test("repeats along broadcast dims, and its gradient is the sum over the copies", async () => {
    await fc.assert(
      fc.asyncProperty(broadcasts, async ({ whole, b }) => {
        await gradcheck(device, (t) => ops.expand(t, whole), [{ shape: b }]);
      }),
      { numRuns: 12 },
    );
    using x = counting([2, 1]);
    using y = ops.expand(x, [2, 2, 2]);
    expect(await valuesOf(y)).toEqual([0, 0, 1, 1, 0, 0, 1, 1]);
    expect(() => ops.expand(x, [3, 2])).toThrow(ShapeError);
    expect(() => ops.expand(x, [2])).toThrow(ShapeError);
  });
});

describe("cast", () => {
  test("rounds to the dtype, and the gradient comes back in the source's", async () => {
    using x = device.tensor([1 + 2 ** -8, -3.9], { requiresGrad: true });
    using half = ops.cast(x, "bfloat16");
    using back = ops.cast(half, "float32");
    expect(await valuesOf(back)).toEqual([1, -3.90625]);
    await ops.sum(back).backward();
    expect(x.grad!.dtype).toBe("float32");
    expect(await valuesOf(x.grad!)).toEqual([1, 1]);
    using whole = ops.cast(x, "int32");
    expect(await valuesOf(whole)).toEqual([1, -3]);
    expect(whole.requiresGrad).toBe(false);
  });
});

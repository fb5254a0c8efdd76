import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ShapeError } from "../../../../core/contracts/errors.ts";
import type { Device } from "../../../../core/tensor/device.ts";
import * as ops from "../../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../../core/tensor/tensor.ts";
import { gradcheck, testDevice, valuesOf } from "../gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

/** The plain twin: all scores, made of other operations. Repeats key heads and masks by adding. */
function plainAttention(query: Tensor, key: Tensor, value: Tensor, causal: boolean, scale: number): Tensor {
  const [batch, queryLength, heads, dim] = query.shape as [number, number, number, number];
  const [, keyLength, keyHeads] = key.shape as [number, number, number, number];
  const byHead = (t: Tensor): Tensor => {
    const shared = heads / t.shape[2]!;
    const moved = ops.reshape(ops.transpose(t, 1, 2), [batch, t.shape[2]!, 1, t.shape[1]!, dim]);
    return ops.reshape(ops.expand(moved, [batch, t.shape[2]!, shared, t.shape[1]!, dim]), [
      batch,
      heads,
      t.shape[1]!,
      dim,
    ]);
  };
  expect(heads % keyHeads).toBe(0);
  const mask = device.tensor(
    Float64Array.from({ length: queryLength * keyLength }, (_, i) => {
      const [t, s] = [Math.floor(i / keyLength), i % keyLength];
      return causal && s > t + keyLength - queryLength ? Number.NEGATIVE_INFINITY : 0;
    }),
    { shape: [queryLength, keyLength] },
  );
  const scores = ops.mul(ops.matmul(byHead(query), ops.transpose(byHead(key), -1, -2)), scale);
  const weights = ops.softmax(ops.add(scores, mask));
  return ops.transpose(ops.matmul(weights, byHead(value)), 1, 2);
}

async function expectClose(found: Tensor, expected: Tensor): Promise<void> {
  expect(found.shape).toEqual(expected.shape);
  const values = await valuesOf(expected);
  for (const [i, value] of (await valuesOf(found)).entries()) expect(value).toBeCloseTo(values[i]!, 10);
}

const cases = fc.record({
  batch: fc.integer({ min: 0, max: 2 }),
  keyHeads: fc.integer({ min: 1, max: 2 }),
  shared: fc.integer({ min: 1, max: 2 }),
  queryLength: fc.integer({ min: 0, max: 3 }),
  earlier: fc.integer({ min: 0, max: 2 }),
  dim: fc.integer({ min: 1, max: 3 }),
  causal: fc.boolean(),
});

describe("scaledDotProductAttention", () => {
  test("equals its plain twin with all scores, at any grouping of heads and any cache before the queries", async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ batch, keyHeads, shared, queryLength, earlier, dim, causal }) => {
        const keyLength = queryLength + earlier;
        fc.pre(keyLength > 0);
        const shape = [batch, queryLength, keyHeads * shared, dim];
        const keyShape = [batch, keyLength, keyHeads, dim];
        await device.scope(async () => {
          const [q, k, v] = [shape, keyShape, keyShape].map((s) => device.randn(s, { dtype: "float64" }));
          const scale = 1 / Math.sqrt(dim);
          await expectClose(
            ops.scaledDotProductAttention(q!, k!, v!, { causal }),
            plainAttention(q!, k!, v!, causal, scale),
          );
          await expectClose(
            ops.scaledDotProductAttention(q!, k!, v!, { causal, scale: 0.3 }),
            plainAttention(q!, k!, v!, causal, 0.3),
          );
        });
        await gradcheck(device, (q, k, v) => ops.scaledDotProductAttention(q!, k!, v!, { causal }), [
          { shape },
          { shape: keyShape },
          { shape: keyShape },
        ]);
      }),
      { numRuns: 10 },
    );
  });

  test("operands that do not fit are refused, with all shapes in the message", () => {
    const zeros = (...shape: number[]) => device.zeros(shape);
    const q = zeros(1, 2, 4, 8);
    for (const [key, value] of [
      [zeros(1, 2, 4), zeros(1, 2, 4)],
      [zeros(2, 2, 4, 8), zeros(2, 2, 4, 8)],
      [zeros(1, 2, 4, 7), zeros(1, 2, 4, 7)],
      [zeros(1, 2, 3, 8), zeros(1, 2, 3, 8)],
      [zeros(1, 2, 0, 8), zeros(1, 2, 0, 8)],
      [zeros(1, 2, 4, 8), zeros(1, 3, 4, 8)],
    ] as const) {
      expect(() => ops.scaledDotProductAttention(q, key, value)).toThrow("float32 [1, 2, 4, 8], float32 [");
    }
    const short = zeros(1, 1, 4, 8);
    expect(() => ops.scaledDotProductAttention(q, short, short, { causal: true })).toThrow(
      "2 queries and 1 keys",
    );
  });
});

describe("packedAttention", () => {
  test("equals attention on the three parts cut out, and puts their gradients back in one tensor", async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ batch, keyHeads: heads, queryLength: length, dim, causal }) => {
        const shape = [batch, length, 3 * heads * dim];
        await device.scope(async () => {
          const qkv = device.randn(shape, { dtype: "float64" });
          const [q, k, v] = [0, 1, 2].map((part) =>
            ops.reshape(ops.slice(qkv, 2, part * heads * dim, (part + 1) * heads * dim), [
              batch,
              length,
              heads,
              dim,
            ]),
          );
          const apart = ops.scaledDotProductAttention(q!, k!, v!, { causal });
          await expectClose(
            ops.packedAttention(qkv, heads, { causal }),
            ops.reshape(apart, [batch, length, heads * dim]),
          );
        });
        await gradcheck(device, (qkv) => ops.packedAttention(qkv, heads, { causal }), [{ shape }]);
      }),
      { numRuns: 10 },
    );
  });

  test("a width that is not three times the heads is refused", () => {
    for (const [shape, heads] of [
      [[1, 2, 12], 3],
      [[1, 2, 10], 1],
      [[2, 12], 2],
      [[1, 2, 12], 0],
    ] as const) {
      expect(() => ops.packedAttention(device.zeros(shape), heads)).toThrow(ShapeError);
    }
  });
});

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
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

/** Cosine and sine of `rows` places' angles, for `half` pairs. */
function tables(rows: number, half: number): [Tensor, Tensor] {
  const angles = Array.from({ length: rows * half }, (_, i) => Math.floor(i / half) * 0.7 ** (i % half));
  const table = (of: (angle: number) => number): Tensor =>
    device.tensor(Float64Array.from(angles, of), { shape: [rows, half] });
  return [table(Math.cos), table(Math.sin)];
}

describe("rotary", () => {
  test("gradients are right with and without a batch, and with more angles than places", async () => {
    for (const shape of [
      [2, 3, 2, 4],
      [3, 1, 6],
      [1, 0, 2],
      [0, 2, 4],
    ]) {
      const [cos, sin] = tables(4, shape.at(-1)! / 2);
      await gradcheck(device, (x) => ops.rotary(x!, cos, sin), [{ shape }]);
      cos.dispose();
      sin.dispose();
    }
  });

  test("products of a query and a key depend on how far apart they are alone", async () => {
    const [length, dim] = [9, 6];
    const [cos, sin] = tables(length, dim / 2);
    await device.scope(async () => {
      const everywhere = (x: Tensor): Tensor => ops.expand(ops.reshape(x, [1, 1, dim]), [length, 1, dim]);
      const [query, key] = [0, 1].map(() => {
        const rotated = ops.rotary(everywhere(device.randn([dim], { dtype: "float64" })), cos, sin);
        return ops.reshape(rotated, [length, dim]);
      }) as [Tensor, Tensor];
      const products = await valuesOf(ops.matmul(query, ops.transpose(key, 0, 1)));
      for (let i = 1; i < length; i++) {
        for (let j = 1; j < length; j++) {
          expect(products[i * length + j]!).toBeCloseTo(products[(i - 1) * length + j - 1]!, 10);
        }
      }
      expect(Math.abs(products[0]! - products[1]!)).toBeGreaterThan(1e-3);
    });
    cos.dispose();
    sin.dispose();
  });

  test("odd heads, and angles of other extents or dtypes, are refused with all shapes in the message", () => {
    using x = device.zeros([2, 3, 1, 4]);
    using angles = device.zeros([3, 2]);
    expect(() => ops.rotary(x, angles, device.zeros([2, 2]))).toThrow(
      "float32 [2, 3, 1, 4], float32 [3, 2], float32 [2, 2]",
    );
    expect(() => ops.rotary(x, device.zeros([2, 2]), device.zeros([2, 2]))).toThrow(ShapeError);
    expect(() => ops.rotary(device.zeros([3, 1, 3]), angles, angles)).toThrow(ShapeError);
    expect(() => ops.rotary(device.zeros([3, 4]), angles, angles)).toThrow(ShapeError);
    const wide = device.zeros([3, 2], { dtype: "float64" });
    expect(() => ops.rotary(x, wide, wide)).toThrow(ShapeError);
  });
});

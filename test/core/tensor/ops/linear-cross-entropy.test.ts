import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { ShapeError } from "../../../../core/contracts/errors.ts";
import type { Device } from "../../../../core/tensor/device.ts";
import * as ops from "../../../../core/tensor/ops/mod.ts";
import { gradcheck, testDevice, valuesOf } from "../gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

describe("linearCrossEntropy", () => {
  for (const chunkRows of [1, 3, 7, 100]) {
    test(`in chunks of ${chunkRows} rows equals linear and crossEntropy, gradients too`, async () => {
      using targets = device.tensor(Int32Array.of(2, 0, -100, 4, 1, 4, 3));
      const fused = (x: Parameters<typeof ops.linear>[0], w: typeof x) =>
        ops.linearCrossEntropy(x, w, targets, { chunkRows });
      const values = async (dtype: "float32" | "float64") => {
        using x = device.randn([7, 6], { dtype, requiresGrad: true });
        using w = device.randn([5, 6], { dtype, requiresGrad: true });
        const results: number[][] = [];
        for (const loss of [fused(x, w), ops.crossEntropy(ops.linear(x, w), targets)]) {
          await ops.mul(loss, 3).backward();
          results.push([...(await valuesOf(x.grad!)), ...(await valuesOf(w.grad!))]);
          for (const leaf of [x, w]) {
            leaf.grad!.dispose();
            leaf.grad = undefined;
          }
        }
        return results;
      };
      for (const dtype of ["float32", "float64"] as const) {
        const [ours, plain] = await values(dtype);
        for (const [i, value] of ours!.entries()) expect(value).toBeCloseTo(plain![i]!, 5);
      }
      await gradcheck(device, (x, w) => fused(x, w), [{ shape: [7, 6] }, { shape: [5, 6] }]);
    });
  }

  test("gives the same gradients whatever loss scale it is told to expect", async () => {
    using targets = device.tensor(Int32Array.of(1, 0, 2));
    using x = device.randn([3, 4], { requiresGrad: true });
    using w = device.randn([3, 4]);
    const gradientsAt = async (expected: number, actual: number) => {
      device.lossScale = expected;
      await ops.mul(ops.linearCrossEntropy(x, w, targets), actual).backward();
      device.lossScale = 1;
      const values = (await valuesOf(x.grad!)).map((value) => value / actual);
      x.grad!.dispose();
      x.grad = undefined;
      return values;
    };
    const plain = await gradientsAt(1, 1);
    expect(await gradientsAt(1024, 1024)).toEqual(plain);
    const other = await gradientsAt(1024, 96);
    for (const [i, value] of other.entries()) expect(value).toBeCloseTo(plain[i]!, 6);
  });

  test("never holds the logits of more than a chunk", async () => {
    using targets = device.tensor(new Int32Array(64));
    using x = device.randn([64, 4], { requiresGrad: true });
    using w = device.randn([1000, 4], { requiresGrad: true });
    const { memory } = device.backend;
    const peakOf = async (loss: () => ReturnType<typeof ops.sum>) => {
      memory.resetPeak();
      const before = memory.report().currentTotal;
      await device.scope(async () => await loss().backward());
      const peak = memory.report().peakTotal - before;
      for (const leaf of [x, w]) {
        leaf.grad!.dispose();
        leaf.grad = undefined;
      }
      return peak;
    };
    const whole = await peakOf(() => ops.crossEntropy(ops.linear(x, w), targets));
    const chunked = await peakOf(() => ops.linearCrossEntropy(x, w, targets, { chunkRows: 8 }));
    expect(whole).toBeGreaterThan(64 * 1000 * 4);
    expect(chunked).toBeLessThan(64 * 1000 * 4);
  });

  test("refuses operands that do not fit, naming them all", () => {
    using x = device.zeros([3, 4]);
    using w = device.zeros([5, 3]);
    using targets = device.tensor(new Int32Array(3));
    expect(() => ops.linearCrossEntropy(x, w, targets)).toThrow(ShapeError);
    expect(() => ops.linearCrossEntropy(x, w, targets)).toThrow(/\[3, 4\].*\[5, 3\].*\[3\]/);
  });
});

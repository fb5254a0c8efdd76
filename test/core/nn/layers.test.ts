import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { ConfigError } from "../../../core/contracts/errors.ts";
import * as nn from "../../../core/nn/mod.ts";
import type { Device } from "../../../core/tensor/device.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { type CheckInput, gradcheck, leaf, testDevice, valuesOf } from "../tensor/gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

/** Checks a layer's gradients with respect to its input; those of its parameters follow from the operations'. */
async function check(layer: nn.Module<[Tensor], Tensor>, input: CheckInput): Promise<void> {
  await layer.to(device);
  for (const parameter of layer.parameters()) parameter.requiresGrad = false;
  await gradcheck(device, (x) => layer.call(x), [input]);
}

const DOUBLE = { dtype: "float64" } as const;

describe("layers", () => {
  test("gradients of every layer's input are right", async () => {
    await check(new nn.Linear(3, 2, DOUBLE), { shape: [2, 3] });
    await check(new nn.Linear(3, 2, { ...DOUBLE, bias: false }), { shape: [1, 2, 3] });
    await check(new nn.Conv1D(3, 2, DOUBLE), { shape: [2, 3] });
    await check(new nn.LayerNorm(4, DOUBLE), { shape: [2, 4] });
    for (const layer of [
      new nn.ReLU(),
      new nn.GELU(),
      new nn.GELU("tanh"),
      new nn.SiLU(),
      new nn.Sigmoid(),
      new nn.Tanh(),
    ]) {
      await check(layer, { shape: [3] });
    }
    await check(new nn.Dropout(0.5), { shape: [8] });
    await check(new nn.Sequential(new nn.Linear(3, 4, DOUBLE), new nn.GELU(), new nn.Linear(4, 1, DOUBLE)), {
      shape: [2, 3],
    });
  });

  test("a layer computes what its operation does with its parameters, and gradients reach them all", async () => {
    const linear = await new nn.Linear(3, 2, DOUBLE).to(device);
    const conv = await new nn.Conv1D(3, 2, DOUBLE).to(device);
    const norm = await new nn.LayerNorm(3, { ...DOUBLE, eps: 0.5 }).to(device);
    using x = leaf(device, [2, 3], [1, 2, 4, -1, 0, 3]);
    for (const [layer, expected] of [
      [linear, () => ops.add(ops.matmul(x, ops.transpose(linear.weight, 0, 1)), linear.bias!)],
      [conv, () => ops.add(ops.matmul(x, conv.weight), conv.bias!)],
      [norm, () => ops.layerNorm(x, norm.weight, norm.bias, 0.5)],
    ] as const) {
      await device.scope(async () => {
        const y = await layer.call(x);
        const twin = await valuesOf(expected());
        for (const [i, value] of (await valuesOf(y)).entries()) expect(value).toBeCloseTo(twin[i]!, 12);
        await ops.sum(y).backward();
      });
      for (const parameter of layer.parameters()) {
        expect(parameter.grad!.shape).toEqual(parameter.shape);
      }
    }
  });

  test("parameters begin as PyTorch's do", async () => {
    const bound = 1 / Math.sqrt(50);
    const linear = await new nn.Linear(50, 40).to(device);
    for (const parameter of linear.parameters()) {
      const values = await valuesOf(parameter);
      expect(Math.max(...values.map(Math.abs))).toBeLessThanOrEqual(bound);
      expect(new Set(values).size).toBeGreaterThan(values.length / 2);
    }
    expect(deviation(await valuesOf(linear.weight))).toBeCloseTo(bound / Math.sqrt(3), 2);
    const conv = await new nn.Conv1D(50, 40).to(device);
    expect(deviation(await valuesOf(conv.weight))).toBeCloseTo(0.02, 2);
    expect(new Set(await valuesOf(conv.bias!))).toEqual(new Set([0]));
    const embedding = await new nn.Embedding(50, 40).to(device);
    expect(Math.abs(deviation(await valuesOf(embedding.weight)) - 1)).toBeLessThan(0.1);
    const norm = await new nn.LayerNorm(4).to(device);
    expect(await valuesOf(norm.weight)).toEqual([1, 1, 1, 1]);
    expect(await valuesOf(norm.bias!)).toEqual([0, 0, 0, 0]);
  });

  test("an embedding takes another initialiser and gives rows", async () => {
    const layer = await new nn.Embedding(4, 2, { initializer: nn.constant(3) }).to(device);
    using indices = device.tensor(Int32Array.of(1, 1, 0));
    using rows = await layer.call(indices);
    expect(rows.shape).toEqual([3, 2]);
    expect(await valuesOf(rows)).toEqual([3, 3, 3, 3, 3, 3]);
  });

  test("a bias that is not wanted is not there", () => {
    for (const layer of [
      new nn.Linear(2, 2, { bias: false }),
      new nn.Conv1D(2, 2, { bias: false }),
      new nn.LayerNorm(2, { bias: false }),
    ]) {
      expect([...layer.namedParameters()].map(([name]) => name)).toEqual(["weight"]);
    }
  });

  test("dropout acts in training mode only, and refuses a probability outside 0 to 1", async () => {
    using x = device.ones([32]);
    const layer = new nn.Sequential(new nn.Dropout(0.5));
    using noisy = await layer.call(x);
    expect(new Set(await valuesOf(noisy))).toEqual(new Set([0, 2]));
    using calm = await layer.eval().call(x);
    expect(new Set(await valuesOf(calm))).toEqual(new Set([1]));
    expect(() => new nn.Dropout(1.5)).toThrow(ConfigError);
  });

  test("a Sequential names its modules by number, calls them in order and may be empty", async () => {
    const model = new nn.Sequential(new nn.Linear(2, 3), new nn.ReLU(), new nn.Linear(3, 1));
    expect([...model.namedParameters()].map(([name]) => name)).toEqual([
      "0.weight",
      "0.bias",
      "2.weight",
      "2.bias",
    ]);
    expect(model.length).toBe(3);
    using x = device.ones([1]);
    expect(await new nn.Sequential().call(x)).toBe(x);
    class Shift extends nn.Module<[Tensor], Tensor> {
      override forward(t: Tensor): Tensor {
        return ops.add(t, 1);
      }
    }
    class Twice extends nn.Module<[Tensor], Tensor> {
      override forward(t: Tensor): Tensor {
        return ops.mul(t, 2);
      }
    }
    using y = await new nn.Sequential(new Shift(), new Twice(), new Shift()).call(x);
    expect(await valuesOf(y)).toEqual([5]);
  });
});

function deviation(values: readonly number[]): number {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return Math.sqrt(values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length);
}

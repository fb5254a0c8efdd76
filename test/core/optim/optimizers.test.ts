import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { constant } from "../../../core/nn/init.ts";
import { Parameter } from "../../../core/nn/parameter.ts";
import { AdamW, type AdamWValues, type Optimizer, SGD, type SGDValues } from "../../../core/optim/mod.ts";
import type { Device } from "../../../core/tensor/device.ts";
import { clearOfZero, testDevice, valuesOf } from "../tensor/gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

const SIZE = 5;
const STEPS = 6;

/** The gradient at a step: some elements are zero at times. */
function gradientAt(step: number): number[] {
  return Array.from({ length: SIZE }, (_, i) => ((i + step) % 4 === 0 ? 0 : clearOfZero(7 * step + i)));
}

/** Values of a parameter after each of some steps with given gradients. */
async function trajectory(
  dtype: "float32" | "float64",
  make: (parameters: Parameter[]) => Optimizer,
): Promise<number[][]> {
  const parameter = new Parameter([SIZE], constant(0.5), { dtype });
  await parameter.materialize(device);
  using optimizer = make([parameter]);
  const found: number[][] = [];
  for (let step = 1; step <= STEPS; step++) {
    const grad = device.tensor(gradientAt(step), { dtype });
    parameter.accumulateGrad(grad);
    optimizer.step();
    optimizer.zeroGrad();
    found.push(await valuesOf(parameter));
  }
  parameter.dispose();
  return found;
}

async function expectTrajectory(
  make: (parameters: Parameter[]) => Optimizer,
  expected: readonly (readonly number[])[],
): Promise<void> {
  for (const [dtype, tolerance] of [
    ["float64", 1e-13],
    ["float32", 2e-6],
  ] as const) {
    for (const [step, values] of (await trajectory(dtype, make)).entries()) {
      for (const [i, value] of values.entries()) {
        expect(Math.abs(value - expected[step]![i]!)).toBeLessThan(tolerance);
      }
    }
  }
}

/** The update rule as its paper has it, element by element, for one element's gradients. */
function adamw(values: AdamWValues): number[][] {
  const p = new Array<number>(SIZE).fill(0.5);
  const m = new Array<number>(SIZE).fill(0);
  const v = new Array<number>(SIZE).fill(0);
  const [beta1, beta2] = values.betas;
  return Array.from({ length: STEPS }, (_, k) => {
    const t = k + 1;
    for (const [i, g] of gradientAt(t).entries()) {
      m[i] = beta1 * m[i]! + (1 - beta1) * g;
      v[i] = beta2 * v[i]! + (1 - beta2) * g * g;
      const decayed = p[i]! - values.lr * values.weightDecay * p[i]!;
      const [mean, variance] = [m[i]! / (1 - beta1 ** t), v[i]! / (1 - beta2 ** t)];
      p[i] = decayed - (values.lr * mean) / (Math.sqrt(variance) + values.eps);
    }
    return [...p];
  });
}

function sgd(values: SGDValues): number[][] {
  const p = new Array<number>(SIZE).fill(0.5);
  let buffer: number[] | undefined;
  return Array.from({ length: STEPS }, (_, k) => {
    const g = gradientAt(k + 1).map((x, i) => x + values.weightDecay * p[i]!);
    let direction = g;
    if (values.momentum !== 0) {
      const last = buffer;
      buffer = g.map((x, i) =>
        last === undefined ? x : values.momentum * last[i]! + (1 - values.dampening) * x,
      );
      direction = values.nesterov ? g.map((x, i) => x + values.momentum * buffer![i]!) : buffer;
    }
    for (let i = 0; i < SIZE; i++) p[i] = p[i]! - values.lr * direction[i]!;
    return [...p];
  });
}

describe("AdamW", () => {
  test("follows its update rule over several steps, with PyTorch's defaults and others", async () => {
    await expectTrajectory(
      (parameters) => new AdamW(parameters),
      adamw({ lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01 }),
    );
    const others: AdamWValues = { lr: 0.05, betas: [0.5, 0.9], eps: 1e-3, weightDecay: 0.3 };
    await expectTrajectory((parameters) => new AdamW(parameters, others), adamw(others));
  });

  test("gives the numbers that PyTorch gives", async () => {
    // By hand for one element: m / (1 - beta1) = g and v / (1 - beta2) = g^2 at the first step.
    const parameter = new Parameter([1], constant(1), { dtype: "float64" });
    await parameter.materialize(device);
    using optimizer = new AdamW([parameter], { lr: 0.1, weightDecay: 0.5, eps: 0 });
    parameter.accumulateGrad(device.tensor([-3], { dtype: "float64" }));
    optimizer.step();
    expect((await valuesOf(parameter))[0]).toBeCloseTo(1 * (1 - 0.05) + 0.1, 12);
    parameter.dispose();
  });
});

describe("SGD", () => {
  test("follows its update rule in every combination of its values", async () => {
    const base: SGDValues = { lr: 0.1, momentum: 0, dampening: 0, weightDecay: 0, nesterov: false };
    for (const change of [
      {},
      { weightDecay: 0.2 },
      { momentum: 0.9 },
      { momentum: 0.9, dampening: 0.4, weightDecay: 0.1 },
      { momentum: 0.8, nesterov: true, weightDecay: 0.1 },
    ]) {
      const values = { ...base, ...change };
      await expectTrajectory((parameters) => new SGD(parameters, values), sgd(values));
    }
    await expectTrajectory((parameters) => new SGD(parameters), sgd({ ...base, lr: 1e-3 }));
  });
});

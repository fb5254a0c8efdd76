/**
 * Conformance of optimizer updates, over several steps.
 *
 * @module
 */
import { test } from "bun:test";
import { type Closeness, cases, type FloatDType, isHalf, rounded, type Suite, UNIT } from "./harness.ts";

/** State as it is between steps: 16-bit state is rounded after each. */
function kept(dtype: FloatDType, value: number): number {
  return isHalf(dtype) ? rounded(dtype, value) : value;
}

/** 16-bit state may have gone to the other neighbour in a step. */
function closeness(dtype: FloatDType): Closeness {
  return isHalf(dtype) ? { tolerance: 3 * UNIT[dtype] } : {};
}

export function optimizerConformance(suite: Suite): void {
  test("adamw follows torch.optim.AdamW over three steps", () =>
    cases(suite, 12, async (test, dtype, index) => {
      const length = [0, 1, 2, 3, 4, 5, 31, 64, 1000, 1027, 7, 12][index]!;
      const [lr, beta1, beta2, eps] = [3e-3, 0.9, 0.95, 1e-8];
      const weightDecay = index % 2 === 0 ? 0.1 : 0;
      const p = test.numbers(dtype, length);
      const m = p.map(() => 0);
      const v = p.map(() => 0);
      const parameter = test.put(dtype, p);
      const [expAvg, expAvgSq] = [test.put(dtype, m), test.put(dtype, v)];
      for (let step = 1; step <= 3; step++) {
        const g = test.numbers(dtype, length);
        test.backend.kernels.adamw({
          ...{
            parameter,
            gradient: test.put(dtype, g),
            expAvg,
            expAvgSq,
            lr,
            beta1,
            beta2,
            eps,
            weightDecay,
            step,
          },
        });
        for (let i = 0; i < length; i++) {
          p[i]! *= 1 - lr * weightDecay;
          m[i] = beta1 * m[i]! + (1 - beta1) * g[i]!;
          v[i] = beta2 * v[i]! + (1 - beta2) * g[i]! ** 2;
          const mHat = m[i]! / (1 - beta1 ** step);
          const vHat = v[i]! / (1 - beta2 ** step);
          p[i]! -= (lr * mHat) / (Math.sqrt(vHat) + eps);
          for (const state of [p, m, v]) state[i] = kept(dtype, state[i]!);
        }
      }
      await test.expectClose(parameter, p, "adamw", closeness(dtype));
      await test.expectClose(expAvg, m, "adamw expAvg", closeness(dtype));
      await test.expectClose(expAvgSq, v, "adamw expAvgSq", closeness(dtype));
    }));

  test("sgd follows torch.optim.SGD over three steps, with momentum, dampening and nesterov", () =>
    cases(suite, 16, async (test, dtype, index) => {
      const length = [0, 1, 3, 1027][index % 4]!;
      const momentum = index < 4 ? 0 : 0.9;
      const [lr, weightDecay] = [0.1, index % 2 === 0 ? 0.01 : 0];
      const nesterov = index >= 12;
      const dampening = nesterov ? 0 : 0.2;
      const p = test.numbers(dtype, length);
      const velocity = p.map(() => 0);
      const parameter = test.put(dtype, p);
      const momentumBuffer = momentum === 0 ? undefined : test.out(dtype, length);
      for (let step = 0; step < 3; step++) {
        const g = test.numbers(dtype, length);
        const first = step === 0;
        test.backend.kernels.sgd({
          ...{
            parameter,
            gradient: test.put(dtype, g),
            lr,
            momentum,
            dampening,
            weightDecay,
            nesterov,
            first,
          },
          ...(momentumBuffer === undefined ? {} : { momentumBuffer }),
        });
        for (let i = 0; i < length; i++) {
          let d = g[i]! + weightDecay * p[i]!;
          if (momentum !== 0) {
            velocity[i] = first ? d : momentum * velocity[i]! + (1 - dampening) * d;
            d = nesterov ? d + momentum * velocity[i]! : velocity[i]!;
          }
          p[i]! -= lr * d;
          for (const state of [p, velocity]) state[i] = kept(dtype, state[i]!);
        }
      }
      await test.expectClose(parameter, p, "sgd", closeness(dtype));
      if (momentumBuffer === undefined) return;
      await test.expectClose(momentumBuffer, velocity, "sgd momentum", closeness(dtype));
    }));
}

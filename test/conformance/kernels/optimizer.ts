/**
 * Conformance of optimizer updates, over several steps.
 *
 * @module
 */
import { test } from "bun:test";
import { cases, type Suite } from "./harness.ts";

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
        }
      }
      await test.expectClose(parameter, p, "adamw");
      await test.expectClose(expAvg, m, "adamw expAvg");
      await test.expectClose(expAvgSq, v, "adamw expAvgSq");
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
        }
      }
      await test.expectClose(parameter, p, "sgd");
      if (momentumBuffer !== undefined) await test.expectClose(momentumBuffer, velocity, "sgd momentum");
    }));
}

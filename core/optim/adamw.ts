/**
 * AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, 2019), as `torch.optim.AdamW`.
 *
 * @module
 */
import * as v from "valibot";
import type { Span } from "../contracts/backend.ts";
import type { Kernels } from "../contracts/kernels.ts";
import { type GroupValues, Optimizer, type OptimizerParams, type OptimizerUpdate } from "./optimizer.ts";
import { atLeastZero, belowOne } from "./values.ts";

/** Values of one group. */
export interface AdamWValues extends GroupValues {
  /** Decay rates of the averages of the gradient and of its square; 0.9 and 0.999 by default. */
  betas: readonly [number, number];
  /** Added to the denominator; 1e-8 by default. */
  eps: number;
  /** 0.01 by default. */
  weightDecay: number;
}

const SCHEMA: v.GenericSchema<unknown, AdamWValues> = v.strictObject({
  lr: atLeastZero,
  betas: v.tuple([belowOne, belowOne]),
  eps: atLeastZero,
  weightDecay: atLeastZero,
});

const DEFAULTS: Readonly<AdamWValues> = Object.freeze<AdamWValues>({
  lr: 1e-3,
  betas: [0.9, 0.999],
  eps: 1e-8,
  weightDecay: 0.01,
});

/**
 * With the gradient g at update t: `p *= 1 - lr * weightDecay`, `m = beta1 * m + (1 - beta1) * g`,
 * `v = beta2 * v + (1 - beta2) * g^2`, `p -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)`.
 */
export class AdamW extends Optimizer<AdamWValues> {
  /** @throws ConfigError for values out of range, no parameters, or one parameter twice. */
  constructor(params: OptimizerParams<AdamWValues>, options: Readonly<Partial<AdamWValues>> = {}) {
    super(params, { ...DEFAULTS, ...options }, SCHEMA);
  }

  protected override stateKeys(): readonly string[] {
    return ["exp_avg", "exp_avg_sq"];
  }

  protected override update(kernels: Kernels, update: OptimizerUpdate, group: AdamWValues): void {
    const { parameter, gradient, state, step } = update;
    const { lr, betas, eps, weightDecay } = group;
    const [expAvg, expAvgSq] = state as [Span, Span];
    const [beta1, beta2] = betas;
    kernels.adamw({ parameter, gradient, expAvg, expAvgSq, lr, beta1, beta2, eps, weightDecay, step });
  }
}

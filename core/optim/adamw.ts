/**
 * AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, 2019), as `torch.optim.AdamW`.
 *
 * @module
 */
import * as v from "valibot";
import type { Tensor } from "../tensor/tensor.ts";
import { type GroupValues, Optimizer, type OptimizerParams, type ParameterState } from "./optimizer.ts";
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

  protected override update(local: Tensor, grad: Tensor, state: ParameterState, group: AdamWValues): void {
    const [expAvg, expAvgSq] = state.tensors;
    local.device.backend.kernels.adamw({
      parameter: local.span,
      gradient: grad.span,
      expAvg: expAvg!.tensor.span,
      expAvgSq: expAvgSq!.tensor.span,
      lr: group.lr,
      beta1: group.betas[0],
      beta2: group.betas[1],
      eps: group.eps,
      weightDecay: group.weightDecay,
      step: state.step,
    });
  }
}

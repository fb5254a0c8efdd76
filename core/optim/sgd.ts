/**
 * SGD: stochastic gradient descent with momentum, as `torch.optim.SGD`.
 *
 * @module
 */
import * as v from "valibot";
import type { Kernels } from "../contracts/kernels.ts";
import { type GroupValues, Optimizer, type OptimizerParams, type OptimizerUpdate } from "./optimizer.ts";
import { atLeastZero } from "./values.ts";

/** Values of one group. */
export interface SGDValues extends GroupValues {
  /** 0, no momentum, by default. */
  momentum: number;
  /** How much less of the gradient goes into the momentum; 0 by default. */
  dampening: number;
  /** Added to the gradient times the parameter; 0 by default. */
  weightDecay: number;
  /** Look ahead along the momentum (Nesterov); off by default. */
  nesterov: boolean;
}

const SCHEMA: v.GenericSchema<unknown, SGDValues> = v.pipe(
  v.strictObject({
    lr: atLeastZero,
    momentum: atLeastZero,
    dampening: atLeastZero,
    weightDecay: atLeastZero,
    nesterov: v.boolean(),
  }),
  v.check(
    ({ nesterov, momentum, dampening }) => !nesterov || (momentum > 0 && dampening === 0),
    "nesterov needs momentum > 0 and dampening 0",
  ),
);

const DEFAULTS: Readonly<SGDValues> = Object.freeze<SGDValues>({
  lr: 1e-3,
  momentum: 0,
  dampening: 0,
  weightDecay: 0,
  nesterov: false,
});

/**
 * With the gradient g: `g += weightDecay * p`; with momentum `b = momentum * b + (1 - dampening) * g` (at the first update
 * `b = g`) and `g = b`, or `g += momentum * b` for Nesterov's; then `p -= lr * g`.
 */
export class SGD extends Optimizer<SGDValues> {
  /** @throws ConfigError for values out of range, no parameters, or one parameter twice. */
  constructor(params: OptimizerParams<SGDValues>, options: Readonly<Partial<SGDValues>> = {}) {
    super(params, { ...DEFAULTS, ...options }, SCHEMA);
  }

  protected override stateKeys(group: SGDValues): readonly string[] {
    return group.momentum === 0 ? [] : ["momentum_buffer"];
  }

  protected override update(kernels: Kernels, update: OptimizerUpdate, group: SGDValues): void {
    const { parameter, gradient, state, step } = update;
    const { lr, momentum, dampening, weightDecay, nesterov } = group;
    const [momentumBuffer] = state;
    const buffer = momentumBuffer === undefined ? {} : { momentumBuffer };
    const first = step === 1;
    kernels.sgd({
      parameter,
      gradient,
      ...buffer,
      lr,
      momentum,
      dampening,
      weightDecay,
      nesterov,
      first,
    });
  }
}

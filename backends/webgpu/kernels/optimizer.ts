/**
 * Optimizer updates, as `torch.optim.AdamW` and `torch.optim.SGD`.
 *
 * @module
 */
import type { AdamWArgs, SGDArgs } from "../../../core/contracts/kernels.ts";
import type { Gpu } from "../dispatch.ts";
import { floatType, requireSame } from "../spans.ts";
import { adamwSource, momentumSource, sgdSource } from "../wgsl/optimizer.ts";
import { runMap } from "./map.ts";

/** See `Kernels.adamw`. */
export function adamw(gpu: Gpu, args: AdamWArgs): void {
  const { parameter, gradient, expAvg, expAvgSq, lr, beta1, beta2, eps, weightDecay, step } = args;
  const spans = [parameter, gradient, expAvg, expAvgSq];
  requireSame("adamw", spans);
  const type = floatType(gpu, "adamw", parameter);
  runMap(gpu, (wide) => adamwSource(type, wide), [...spans, parameter, expAvg, expAvgSq], {
    decay: 1 - lr * weightDecay,
    first: 1 - beta1,
    beta2,
    second: 1 - beta2,
    step_size: lr / (1 - beta1 ** step),
    correction: Math.sqrt(1 - beta2 ** step),
    eps,
  });
}

/** See `Kernels.sgd`. */
export function sgd(gpu: Gpu, args: SGDArgs): void {
  const { parameter, gradient, momentumBuffer, lr, momentum, dampening, weightDecay, nesterov, first } = args;
  const type = floatType(gpu, "sgd", parameter);
  if (momentumBuffer === undefined) {
    requireSame("sgd", [parameter, gradient]);
    const params = { lr, decay: weightDecay };
    runMap(gpu, (wide) => sgdSource(type, wide), [parameter, gradient, parameter], params);
    return;
  }
  const spans = [parameter, gradient, momentumBuffer];
  requireSame("sgd", spans);
  runMap(gpu, (wide) => momentumSource(type, nesterov, first, wide), [...spans, parameter, momentumBuffer], {
    lr,
    decay: weightDecay,
    momentum,
    share: 1 - dampening,
  });
}

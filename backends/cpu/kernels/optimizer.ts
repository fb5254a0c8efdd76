/**
 * Optimizer updates over runs of elements, in plain TypeScript, as `torch.optim.AdamW` and `torch.optim.SGD`.
 *
 * @module
 */
import type { AdamWArgs, SGDArgs } from "../../../core/contracts/kernels.ts";
import { floats, type Heap, requireSame } from "./heap.ts";

/** See `Kernels.adamw`. */
export function adamw(heap: Heap, args: AdamWArgs): void {
  requireSame("adamw", [args.parameter, args.gradient, args.expAvg, args.expAvgSq]);
  const parameter = floats(heap, "adamw", args.parameter);
  const gradient = floats(heap, "adamw", args.gradient);
  const expAvg = floats(heap, "adamw", args.expAvg);
  const expAvgSq = floats(heap, "adamw", args.expAvgSq);
  const { lr, beta1, beta2, eps, weightDecay, step } = args;
  const decay = 1 - lr * weightDecay;
  const stepSize = lr / (1 - beta1 ** step);
  const correction = Math.sqrt(1 - beta2 ** step);
  for (let i = 0; i < parameter.length; i++) {
    const g = gradient[i]!;
    const average = expAvg[i]! + (1 - beta1) * (g - expAvg[i]!);
    const square = beta2 * expAvgSq[i]! + (1 - beta2) * g * g;
    expAvg[i] = average;
    expAvgSq[i] = square;
    parameter[i] = parameter[i]! * decay - (stepSize * average) / (Math.sqrt(square) / correction + eps);
  }
}

/** See `Kernels.sgd`. */
export function sgd(heap: Heap, args: SGDArgs): void {
  const { parameter, gradient, momentumBuffer, lr, momentum, dampening, weightDecay, nesterov, first } = args;
  requireSame(
    "sgd",
    momentumBuffer === undefined ? [parameter, gradient] : [parameter, gradient, momentumBuffer],
  );
  const values = floats(heap, "sgd", parameter);
  const gradients = floats(heap, "sgd", gradient);
  const buffer = momentumBuffer && floats(heap, "sgd", momentumBuffer);
  for (let i = 0; i < values.length; i++) {
    let g = gradients[i]! + weightDecay * values[i]!;
    if (buffer !== undefined) {
      const velocity = first ? g : momentum * buffer[i]! + (1 - dampening) * g;
      buffer[i] = velocity;
      g = nesterov ? g + momentum * velocity : velocity;
    }
    values[i] = values[i]! - lr * g;
  }
}

/**
 * Clipping of gradients that may still be scaled.
 *
 * @module
 */
import { ConfigError } from "../../../core/contracts/errors.ts";
import { clipGradNorm } from "../../../core/engine/clip.ts";
import type { Parameter } from "../../../core/nn/parameter.ts";
import type { AcceleratedOptimizer } from "./accelerated-optimizer.ts";

/**
 * Scales gradients of any parameters so that their joint norm over all ranks is at most `maxNorm`, after those of the
 * optimizers were unscaled. Collective. Returns the norm before clipping.
 */
export async function clipNorm(
  optimizers: readonly AcceleratedOptimizer[],
  parameters: readonly Parameter[],
  maxNorm: number,
  normType: number,
): Promise<number> {
  const scaled = optimizers.filter((optimizer) => optimizer.isScaled);
  const [first] = scaled;
  // One optimizer's whole model, as nearly always: one pass over its gradients does both.
  if (scaled.length === 1 && sameMembers(first!.parameters, parameters)) {
    return await first!.clip(maxNorm, normType);
  }
  for (const optimizer of scaled) await optimizer.unscale();
  return await clipGradNorm(parameters, maxNorm, { normType });
}

/**
 * Limits every element of the gradients to `-value ... value`, as `torch.nn.utils.clip_grad_value_`: the same however they
 * are cut. Collective where gradients are scaled.
 *
 * @throws ConfigError when `value` is not positive.
 */
export async function clipValue(
  optimizers: readonly AcceleratedOptimizer[],
  parameters: readonly Parameter[],
  value: number,
): Promise<void> {
  if (!(value > 0)) throw new ConfigError(`clipGradValue() failed: given ${value}, allowed are numbers > 0`);
  for (const optimizer of optimizers) await optimizer.unscale();
  for (const { grad } of parameters) {
    if (grad === undefined || grad.numel === 0) continue;
    const { device, dtype, span, numel } = grad;
    const { kernels } = device.backend;
    using bound = device.allocate([], dtype);
    const one = { span: bound.span, strides: [0] };
    const all = { span, strides: [1] };
    kernels.fill(bound.span, value);
    kernels.binary("minimum", all, one, span, [numel]);
    kernels.fill(bound.span, -value);
    kernels.binary("maximum", all, one, span, [numel]);
  }
}

function sameMembers(a: readonly Parameter[], b: readonly Parameter[]): boolean {
  const members = new Set(a);
  return members.size === new Set(b).size && b.every((each) => members.has(each));
}

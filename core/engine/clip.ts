/**
 * Gradient clipping over sharded gradients, as `torch.nn.utils.clip_grad_norm_`: one norm over all parameters on all
 * ranks, one factor for all gradients.
 *
 * Each rank sums over its own parts and a collective per group adds up; padding is in no part, so it counts nowhere.
 * Takes any subset of parameters, because each knows the group it is cut over.
 *
 * @module
 */
import type { Collective } from "../contracts/collective.ts";
import { accumulatorDType } from "../contracts/dtype.ts";
import { ConfigError } from "../contracts/errors.ts";
import type { Parameter } from "../nn/parameter.ts";
import { joined } from "../tensor/spans.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Options of clipping. */
export interface ClipOptions {
  /** Order of the norm: a number > 0, or Infinity. Default 2. */
  readonly normType?: number;
  /**
   * Factor by which the loss was scaled: norm and gradients are divided by it. When the norm is not finite (16-bit
   * gradients overflowed on some rank), gradients stay as they are, for the caller to drop. Default 1.
   */
  readonly lossScale?: number;
}

/** Sums of |g|^p (or maxima), read back in one piece from each device. */
async function localPowers(gradients: readonly Tensor[], p: number): Promise<number[]> {
  const alike: Tensor[][] = [];
  for (const gradient of gradients) {
    const { device } = gradient;
    const dtype = accumulatorDType(gradient.dtype);
    const known = alike.find(
      ([first]) => first!.device === device && accumulatorDType(first!.dtype) === dtype,
    );
    if (known === undefined) alike.push([gradient]);
    else known.push(gradient);
  }
  const powers: number[] = [];
  for (const some of alike) {
    const { device, dtype } = some[0]!;
    using sums = device.allocate([some.length], accumulatorDType(dtype));
    for (const [i, gradient] of some.entries()) {
      const out = { ...sums.span, offset: sums.offset + i, length: 1 };
      device.backend.kernels.normPower(gradient.span, out, p);
    }
    powers.push(...Array.from((await sums.data()) as Float32Array, Number));
  }
  return powers;
}

/**
 * Scales the gradients in place so that their joint norm is at most `maxNorm`.
 *
 * Collective: every rank of the parameters' groups must call it with the same parameters.
 *
 * @param maxNorm a number > 0; Infinity clips nothing.
 * @returns the norm before clipping, a plain number, the same on every rank.
 * @throws ConfigError when `maxNorm`, the norm's order or the loss scale is not positive.
 */
export async function clipGradNorm(
  parameters: readonly Parameter[],
  maxNorm: number,
  options: ClipOptions = {},
): Promise<number> {
  const p = options.normType ?? 2;
  if (!(p > 0))
    throw new ConfigError(`clipGradNorm() failed: normType ${p}, allowed are numbers > 0 and Infinity`);
  if (!(maxNorm > 0))
    throw new ConfigError(`clipGradNorm() failed: maxNorm ${maxNorm}, allowed are numbers > 0`);
  const lossScale = options.lossScale ?? 1;
  if (!(lossScale > 0))
    throw new ConfigError(`clipGradNorm() failed: lossScale ${lossScale}, allowed are numbers > 0`);
  const groups = new Map<Collective | undefined, Tensor[]>();
  for (const parameter of parameters) {
    const group = parameter.manager?.group;
    const gradients = groups.get(group) ?? [];
    // A rank without a part still takes part in the sum.
    groups.set(group, gradients);
    if (parameter.grad !== undefined) gradients.push(parameter.grad);
  }
  const combine = (a: number, b: number) => (p === Number.POSITIVE_INFINITY ? maxOf(a, b) : a + b);
  let total = 0;
  for (const [group, gradients] of groups) {
    const own = (await localPowers(gradients, p)).reduce(combine, 0);
    const sum = new Float64Array([own]);
    if (group !== undefined && group.size > 1) {
      await group.allReduce(sum, p === Number.POSITIVE_INFINITY ? "max" : "sum", "float64").wait();
    }
    total = combine(total, sum[0]!);
  }
  const norm = (p === Number.POSITIVE_INFINITY ? total : total ** (1 / p)) / lossScale;
  if (lossScale !== 1 && !Number.isFinite(norm)) return norm;
  const factor = Math.min(1, maxNorm / (norm + 1e-6)) / lossScale;
  if (factor === 1) return norm;
  for (const gradients of groups.values()) {
    const spans = joined(gradients.map((gradient) => gradient.span));
    for (const span of spans) gradients[0]!.device.backend.kernels.affine(span, span, factor, 0);
  }
  return norm;
}

/** The larger number, or NaN when either is. */
function maxOf(a: number, b: number): number {
  return Number.isNaN(a) || Number.isNaN(b) ? Number.NaN : Math.max(a, b);
}

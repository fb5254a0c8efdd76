/**
 * Layer normalisation (Ba et al., 2016), as `torch.nn.functional.layer_norm` over the last dim.
 *
 * @module
 */
import { accumulatorDType } from "../../contracts/dtype.ts";
import { ShapeError } from "../../contracts/errors.ts";
import { numelOf, sameShape, showShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";

/**
 * `(x - mean) / sqrt(variance + eps) * weight + bias` over the last dim of `x` [..., n], with `weight` [n] and `bias`
 * [n]; the variance is the biased one.
 *
 * @throws ShapeError when shapes or dtypes do not fit.
 */
export function layerNorm(x: Tensor, weight: Tensor, bias?: Tensor, eps = 1e-5): Tensor {
  const columns = x.shape.at(-1);
  const scales = bias === undefined ? [weight] : [weight, bias];
  if (
    columns === undefined ||
    scales.some((scale) => !sameShape(scale.shape, [columns]) || scale.dtype !== x.dtype)
  ) {
    const given = [x, ...scales].map((t) => `${t.dtype} ${showShape(t.shape)}`).join(", ");
    throw new ShapeError(
      `layerNorm() failed: ${given}, allowed are [..., n], a weight of [n] and a bias of [n], of one dtype`,
    );
  }
  const { device } = x;
  const rows = numelOf(x.shape.slice(0, -1));
  const out = device.result(x.shape, x.dtype);
  const average = device.allocate([rows], accumulatorDType(x.dtype));
  const rstd = device.allocate([rows], accumulatorDType(x.dtype));
  device.backend.kernels.layerNorm({
    x: x.span,
    weight: weight.span,
    bias: bias?.span,
    out: out.span,
    mean: average.span,
    rstd: rstd.span,
    rows,
    columns,
    eps,
  });
  device.record(out, {
    op: "layerNorm",
    inputs: [x, ...scales],
    saved: [x, weight, average, rstd],
    backward: (gradient, saved, needs) => {
      const [input, scale, mean, deviation] = saved;
      const [dx, dWeight, dBias] = [input!.shape, [columns], [columns]].map((shape, i) =>
        needs[i] ? gradient.device.allocate(shape, gradient.dtype) : undefined,
      );
      gradient.device.backend.kernels.layerNormBackward({
        x: input!.span,
        weight: scale!.span,
        mean: mean!.span,
        rstd: deviation!.span,
        gradient: gradient.span,
        dx: dx?.span,
        dWeight: dWeight?.span,
        dBias: dBias?.span,
        rows,
        columns,
      });
      return [dx, dWeight, dBias];
    },
  });
  average.dispose();
  rstd.dispose();
  return out;
}

/**
 * Root-mean-square normalisation (Zhang & Sennrich, 2019), as `torch.nn.functional.rms_norm` over the last dim.
 *
 * @module
 */
import { accumulatorDType } from "../../contracts/dtype.ts";
import { ShapeError } from "../../contracts/errors.ts";
import { numelOf, sameShape, showShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { gradientSlot } from "./in-place.ts";

/**
 * `x / sqrt(mean(x^2) + eps) * weight` over the last dim of `x` [..., n], with `weight` [n].
 *
 * @throws ShapeError when shapes or dtypes do not fit.
 */
export function rmsNorm(x: Tensor, weight: Tensor, eps = 1e-6): Tensor {
  const columns = x.shape.at(-1);
  if (columns === undefined || !sameShape(weight.shape, [columns]) || weight.dtype !== x.dtype) {
    const given = [x, weight].map((t) => `${t.dtype} ${showShape(t.shape)}`).join(", ");
    throw new ShapeError(
      `rmsNorm() failed: ${given}, allowed are [..., n] and a weight of [n], of one dtype`,
    );
  }
  const { device } = x;
  const rows = numelOf(x.shape.slice(0, -1));
  const out = device.result(x.shape, x.dtype);
  const rstd = device.allocate([rows], accumulatorDType(x.dtype));
  device.backend.kernels.rmsNorm({
    x: x.span,
    weight: weight.span,
    out: out.span,
    rstd: rstd.span,
    rows,
    columns,
    eps,
  });
  device.record(out, {
    op: "rmsNorm",
    inputs: [x, weight],
    saved: [x, weight, rstd],
    backward: (gradient, [input, scale, deviation], needs) => {
      const dWeight = needs[1] ? gradient.device.allocate([columns], gradient.dtype) : undefined;
      const dx = needs[0] ? gradientSlot(gradient) : undefined;
      gradient.device.backend.kernels.rmsNormBackward({
        x: input!.span,
        weight: scale!.span,
        rstd: deviation!.span,
        gradient: gradient.span,
        dx: dx?.span,
        dWeight: dWeight?.span,
        rows,
        columns,
      });
      return [dx, dWeight];
    },
  });
  rstd.dispose();
  return out;
}

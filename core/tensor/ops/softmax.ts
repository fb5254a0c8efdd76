/**
 * Softmax and log-softmax over any dim. The kernel works on rows; another dim is exchanged with the last.
 *
 * @module
 */
import { normalizeDim, numelOf } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { gradientSlot } from "./in-place.ts";
import { transpose } from "./layout.ts";

/** e^x / sum of e^x along `dim`. @throws ShapeError for a dim that `x` has not. */
export function softmax(x: Tensor, dim = -1): Tensor {
  return alongDim("softmax", x, dim);
}

/** Logarithm of softmax along `dim`, without its rounding. @throws ShapeError for a dim that `x` has not. */
export function logSoftmax(x: Tensor, dim = -1): Tensor {
  return alongDim("logSoftmax", x, dim);
}

function alongDim(op: "softmax" | "logSoftmax", x: Tensor, dim: number): Tensor {
  const d = normalizeDim(dim, x.shape.length, `${op}()`);
  const last = x.shape.length - 1;
  if (d !== last) return transpose(alongDim(op, transpose(x, d, last), last), d, last);
  const columns = x.shape[last]!;
  const rows = numelOf(x.shape.slice(0, -1));
  const log = op === "logSoftmax";
  const out = x.device.result(x.shape, x.dtype);
  x.device.backend.kernels.softmax(x.span, out.span, rows, columns, log);
  return x.device.record(out, {
    op,
    inputs: [x],
    saved: [out],
    backward: (gradient, [y]) => {
      const dx = gradientSlot(gradient);
      const { kernels } = gradient.device.backend;
      kernels.softmaxBackward(y!.span, gradient.span, dx.span, rows, columns, log);
      return [dx];
    },
  });
}

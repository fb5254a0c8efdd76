/**
 * A language model's head and its loss in one: logits are made, used and dropped chunk by chunk, so that those of the
 * whole batch never exist at once. The gradients are made in the same pass, as in Liger Kernel's fused linear cross
 * entropy (Hsu et al. 2024), so nothing is computed twice.
 *
 * @module
 */
import { accumulatorDType } from "../../contracts/dtype.ts";
import { ShapeError } from "../../contracts/errors.ts";
import type { MatrixOperand } from "../../contracts/kernels.ts";
import { sameShape, showShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { countValid, scalar } from "./valid-targets.ts";

/** Options of `linearCrossEntropy`. */
export interface LinearCrossEntropyOptions {
  /** Rows whose logits exist at once. Default 2048. */
  readonly chunkRows?: number;
}

/**
 * `crossEntropy(linear(x, weight), targets)`: the mean over the targets that are not -100, for `x` [rows, in], `weight`
 * [classes, in] and int32 or int64 `targets` [rows].
 *
 * @throws ShapeError when the shapes do not fit or targets are no integers.
 */
export function linearCrossEntropy(
  x: Tensor,
  weight: Tensor,
  targets: Tensor,
  options: LinearCrossEntropyOptions = {},
): Tensor {
  const { chunkRows = 2048 } = options;
  const fits =
    x.shape.length === 2 &&
    weight.shape.length === 2 &&
    x.shape[1] === weight.shape[1] &&
    x.dtype === weight.dtype &&
    sameShape(targets.shape, x.shape.slice(0, 1)) &&
    (targets.dtype === "int32" || targets.dtype === "int64");
  if (!fits || !(Number.isInteger(chunkRows) && chunkRows > 0)) {
    throw new ShapeError(
      `linearCrossEntropy() failed: ${x.dtype} ${showShape(x.shape)}, ${weight.dtype} ${showShape(weight.shape)}, ${targets.dtype} targets ${showShape(targets.shape)} and chunks of ${chunkRows} rows, allowed are [rows, in], [classes, in] of one dtype, int32 or int64 [rows] and chunks of 1 row or more`,
    );
  }
  const { device, dtype } = x;
  const { kernels } = device.backend;
  const rows = x.shape[0]!;
  const [classes, inner] = [weight.shape[0]!, weight.shape[1]!];
  const wide = accumulatorDType(dtype);
  const recording = device.gradEnabled && (x.requiresGrad || weight.requiresGrad);
  const dx = recording && x.requiresGrad ? device.allocate(x.shape, dtype) : undefined;
  // Adds up over chunks, so in float32 even when the operands are 16-bit.
  const dwSum = recording && weight.requiresGrad ? device.allocate(weight.shape, wide) : undefined;

  const losses = device.allocate([rows], wide);
  const logSumExp = device.allocate([rows], wide);
  const count = countValid(targets, device, wide);
  // The gradient of a row's loss: loss scaling must act before 16-bit gradients are rounded, so it is put in here.
  const perRow = device.allocate([rows], wide);
  kernels.fill(perRow.span, device.lossScale);
  kernels.binary("div", { span: perRow.span, strides: [1] }, scalar(count), perRow.span, [rows]);

  const part = (tensor: Tensor, first: number, length: number, width = 1) => ({
    ...tensor.span,
    offset: tensor.offset + first * width,
    length: length * width,
  });
  const matrix = (span: MatrixOperand["span"], rowStride: number, transposed = false): MatrixOperand => ({
    span,
    rowStride,
    batchStride: 0,
    transposed,
  });
  const logits = device.allocate([Math.min(chunkRows, rows), classes], dtype);
  for (let first = 0; first < rows; first += chunkRows) {
    const m = Math.min(chunkRows, rows - first);
    const input = part(x, first, m, inner);
    const chunk = part(logits, 0, m, classes);
    const [wanted, sums] = [part(targets, first, m), part(logSumExp, first, m)];
    kernels.matmul({
      a: matrix(input, inner),
      b: matrix(weight.span, inner, true),
      out: matrix(chunk, classes),
      batch: 1,
      m,
      n: classes,
      k: inner,
    });
    kernels.crossEntropy(chunk, wanted, part(losses, first, m), sums, m, classes);
    if (!recording) continue;
    kernels.crossEntropyBackward(chunk, wanted, sums, part(perRow, first, m), chunk, m, classes);
    if (dx !== undefined) {
      kernels.matmul({
        a: matrix(chunk, classes),
        b: matrix(weight.span, inner),
        out: matrix(part(dx, first, m, inner), inner),
        batch: 1,
        m,
        n: inner,
        k: classes,
      });
    }
    if (dwSum !== undefined) {
      kernels.matmul({
        a: matrix(chunk, classes, true),
        b: matrix(input, inner),
        out: matrix(dwSum.span, inner),
        batch: 1,
        m: classes,
        n: inner,
        k: m,
        accumulate: first > 0,
      });
    }
  }
  const out = device.result([], wide);
  kernels.reduce("sum", losses.span, out.span, 1, rows, 1);
  kernels.binary("div", { span: out.span, strides: [1] }, scalar(count), out.span, [1]);
  let dw = dwSum;
  if (dwSum !== undefined && dtype !== wide) {
    dw = device.allocate(weight.shape, dtype);
    kernels.cast(dwSum.span, dw.span);
    dwSum.dispose();
  }
  const scale = device.lossScale;
  device.record(out, {
    op: "linearCrossEntropy",
    inputs: [x, weight],
    saved: [dx, dw],
    backward: (gradient, saved, _, last) => {
      // What comes is usually the scale that is in already; the products are exact then.
      const factor = device.allocate([], gradient.dtype);
      kernels.affine(gradient.span, factor.span, 1 / scale, 0);
      const narrow = device.allocate([], dtype);
      kernels.cast(factor.span, narrow.span);
      const products = saved.map((tensor) => {
        if (tensor === undefined) return undefined;
        const out = last && tensor.exclusive ? tensor.alias() : device.allocate(tensor.shape, dtype);
        kernels.binary("mul", { span: tensor.span, strides: [1] }, scalar(narrow), out.span, [tensor.numel]);
        return out;
      });
      factor.dispose();
      narrow.dispose();
      return products;
    },
  });
  for (const tensor of [losses, logSumExp, count, perRow, logits, dx, dw]) tensor?.dispose();
  return out;
}

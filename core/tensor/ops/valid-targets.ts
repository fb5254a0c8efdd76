/**
 * What the losses over classes share: how many targets count, without reading them back.
 *
 * @module
 */
import type { DType } from "../../contracts/dtype.ts";
import type { StridedOperand } from "../../contracts/kernels.ts";
import type { Device } from "../device.ts";
import type { Tensor } from "../tensor.ts";

/** A target that counts for nothing. */
const IGNORED = -100;

/** A one-element tensor as an operand of any one-dimensional space. */
export function scalar(tensor: Tensor): StridedOperand {
  return { span: tensor.span, strides: [0] };
}

/** The number of targets that are not ignored, a scalar of `dtype` on the device; owned by the caller. */
export function countValid(targets: Tensor, device: Device, dtype: DType): Tensor {
  const { kernels } = device.backend;
  const rows = targets.numel;
  const ignored = device.allocate([rows], dtype);
  const count = device.allocate([], dtype);
  kernels.cast(targets.span, ignored.span);
  kernels.fill(count.span, IGNORED);
  kernels.binary("equal", { span: ignored.span, strides: [1] }, scalar(count), ignored.span, [rows]);
  kernels.reduce("sum", ignored.span, count.span, 1, rows, 1);
  kernels.affine(count.span, count.span, -1, rows);
  ignored.dispose();
  return count;
}

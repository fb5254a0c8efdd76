/**
 * What operations with broadcasting share: reading operands at the result's shape, and summing gradients back.
 *
 * @module
 */
import type { StridedOperand } from "../../contracts/kernels.ts";
import { broadcastStrides, type Shape, sameShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";

/** `tensor` read as if it had shape `shape`. */
export function strided(tensor: Tensor, shape: Shape): StridedOperand {
  return { span: tensor.span, strides: broadcastStrides(tensor.shape, shape) };
}

/**
 * Sums `gradient` over the dims along which a tensor of shape `shape` was broadcast. Takes `gradient` over; the result
 * belongs to the caller.
 */
export function sumToShape(gradient: Tensor, shape: Shape): Tensor {
  if (sameShape(gradient.shape, shape)) return gradient;
  const kernels = gradient.device.backend.kernels;
  const lead = gradient.shape.length - shape.length;
  let current = gradient;
  let extents = [...gradient.shape];
  for (let d = 0; d < extents.length; d++) {
    const target = d < lead ? 1 : shape[d - lead]!;
    if (extents[d] === target) continue;
    const outer = extents.slice(0, d).reduce((a, b) => a * b, 1);
    const inner = extents.slice(d + 1).reduce((a, b) => a * b, 1);
    const next = extents.with(d, 1);
    const out = gradient.device.allocate(next, gradient.dtype);
    kernels.reduce("sum", current.span, out.span, outer, extents[d]!, inner);
    current.dispose();
    current = out;
    extents = next;
  }
  const shaped = current.alias(shape);
  current.dispose();
  return shaped;
}

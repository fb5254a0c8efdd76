/**
 * What broadcasting and reductions share: reading operands at a larger shape, repeating them to it, and summing back.
 *
 * @module
 */
import type { ReduceOp, StridedOperand } from "../../contracts/kernels.ts";
import { broadcastStrides, numelOf, type Shape, sameShape, stridesOf } from "../shape.ts";
import type { Tensor } from "../tensor.ts";

/** `tensor` read as if it had shape `shape`. */
export function strided(tensor: Tensor, shape: Shape): StridedOperand {
  return { span: tensor.span, strides: broadcastStrides(tensor.shape, shape) };
}

/**
 * Reduces the marked dims of `x` to extent 1, neighbours in one go. The result belongs to the caller, off the tape;
 * with nothing marked it is a copy.
 */
export function reduceOver(op: ReduceOp, x: Tensor, over: readonly boolean[]): Tensor {
  const { device } = x;
  let current: Tensor | undefined;
  let extents = x.shape;
  for (let begin = 0; begin < over.length; begin++) {
    if (!over[begin]) continue;
    let end = begin + 1;
    while (over[end]) end++;
    const from = extents;
    extents = from.map((extent, d) => (d >= begin && d < end ? 1 : extent));
    const next = device.allocate(extents, x.dtype);
    const [outer, extent, inner] = [from.slice(0, begin), from.slice(begin, end), from.slice(end)];
    const source = current ?? x;
    device.backend.kernels.reduce(
      op,
      source.span,
      next.span,
      numelOf(outer),
      numelOf(extent),
      numelOf(inner),
    );
    current?.dispose();
    current = next;
    begin = end;
  }
  return current ?? device.copyOf(x);
}

/** `small`, read as shape `kept`, repeated along its dims of extent 1 to `shape`; owned by the caller, off the tape. */
export function spread(small: Tensor, kept: Shape, shape: Shape): Tensor {
  const out = small.device.allocate(shape, small.dtype);
  small.device.backend.kernels.copy(small.span, out.span, [
    {
      sizes: shape,
      sourceOffset: 0,
      sourceStrides: broadcastStrides(kept, shape),
      targetOffset: 0,
      targetStrides: stridesOf(shape),
    },
  ]);
  return out;
}

/**
 * Sums `gradient` over the dims along which a tensor of shape `shape` was broadcast. Takes `gradient` over; the result
 * belongs to the caller.
 */
export function sumToShape(gradient: Tensor, shape: Shape): Tensor {
  if (sameShape(gradient.shape, shape)) return gradient;
  const lead = gradient.shape.length - shape.length;
  const over = gradient.shape.map((extent, d) => extent !== (d < lead ? 1 : shape[d - lead]));
  const sum = over.includes(true) ? reduceOver("sum", gradient, over) : gradient.alias();
  gradient.dispose();
  const shaped = sum.alias(shape);
  sum.dispose();
  return shaped;
}

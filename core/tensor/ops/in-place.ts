/**
 * Where a backward pass may write over what it was given.
 *
 * @module
 */
import type { Tensor } from "../tensor.ts";

/** Memory for a result of `gradient`'s shape and dtype: `gradient` itself when nobody else holds it, new otherwise. */
export function gradientSlot(gradient: Tensor): Tensor {
  return gradient.exclusive ? gradient : gradient.device.allocate(gradient.shape, gradient.dtype);
}

/**
 * Dropout (Srivastava et al., 2014), as `torch.nn.functional.dropout`.
 *
 * @module
 */
import { ShapeError } from "../../contracts/errors.ts";
import { streamKey } from "../random.ts";
import type { Tensor } from "../tensor.ts";
import { gradientSlot } from "./in-place.ts";
import { reshape } from "./layout.ts";

/**
 * Zeroes each element with probability `p` and scales the others by `1 / (1 - p)`; the identity when not `training`.
 * Each call draws the next stream of the device's seed. No mask is kept: the backward pass draws the same numbers again.
 *
 * @throws ShapeError unless `0 <= p <= 1`.
 */
export function dropout(x: Tensor, p: number, training = true): Tensor {
  if (!(p >= 0 && p <= 1)) throw new ShapeError(`dropout() failed: p = ${p}, allowed are 0 to 1`);
  // A handle of its own in any case, so that a caller may dispose it.
  if (!training || p === 0) return reshape(x, x.shape);
  const { device } = x;
  const key = streamKey(device.seed, "dropout", device.rank, device.nextStream());
  const out = device.result(x.shape, x.dtype);
  device.backend.kernels.dropout(x.span, out.span, p, key);
  return device.record(out, {
    op: "dropout",
    inputs: [x],
    backward: (gradient) => {
      const dx = gradientSlot(gradient);
      gradient.device.backend.kernels.dropout(gradient.span, dx.span, p, key);
      return [dx];
    },
  });
}

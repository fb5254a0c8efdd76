/**
 * Reductions over all or chosen dims, and their gradients. `max` follows `torch.amax`: ties share the gradient evenly.
 *
 * @module
 */
import { ShapeError } from "../../contracts/errors.ts";
import { broadcastStrides, normalizeDim, numelOf, type Shape, showShape, stridesOf } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { reduceOver, spread } from "./broadcast.ts";

/** Options of the reductions. */
export interface ReduceOptions {
  /** Dims to reduce; all of them by default, and when the list is empty. */
  readonly dim?: number | readonly number[];
  /** Keep reduced dims with extent 1. */
  readonly keepDim?: boolean;
}

/** What a reduction does to a shape. */
interface Reduction {
  /** For each dim whether it goes. */
  readonly over: readonly boolean[];
  /** The result's shape with reduced dims as 1. */
  readonly kept: Shape;
  /** The result's shape. */
  readonly shape: Shape;
  /** Elements that become one. */
  readonly count: number;
}

function reductionOf(x: Tensor, options: ReduceOptions, what: string): Reduction {
  const given = typeof options.dim === "number" ? [options.dim] : (options.dim ?? []);
  const dims = new Set(given.map((dim) => normalizeDim(dim, x.shape.length, what)));
  if (dims.size !== given.length) {
    throw new ShapeError(
      `${what} failed: dims ${showShape(given)} of ${showShape(x.shape)} name a dim twice`,
    );
  }
  const over = x.shape.map((_, d) => dims.size === 0 || dims.has(d));
  const kept = x.shape.map((extent, d) => (over[d] ? 1 : extent));
  const shape = options.keepDim === true ? kept : x.shape.filter((_, d) => !over[d]);
  return { over, kept, shape, count: numelOf(x.shape.filter((_, d) => over[d])) };
}

/** Gives a tensor that the caller owns its final shape, and to the current scope. */
function finish(reduced: Tensor, shape: Shape): Tensor {
  const out = reduced.device.adopt(reduced.alias(shape));
  reduced.dispose();
  return out;
}

/** Sum of the elements. @throws ShapeError for dims that `x` has not, or named twice. */
export function sum(x: Tensor, options: ReduceOptions = {}): Tensor {
  const { over, kept, shape } = reductionOf(x, options, "sum()");
  const from = x.shape;
  return x.device.record(finish(reduceOver("sum", x, over), shape), {
    op: "sum",
    inputs: [x],
    backward: (gradient) => [spread(gradient, kept, from)],
  });
}

/** Mean of the elements; NaN over none. @throws ShapeError for dims that `x` has not, or named twice. */
export function mean(x: Tensor, options: ReduceOptions = {}): Tensor {
  const { over, kept, shape, count } = reductionOf(x, options, "mean()");
  const from = x.shape;
  const { kernels } = x.device.backend;
  const total = reduceOver("sum", x, over);
  kernels.affine(total.span, total.span, 1 / count, 0);
  return x.device.record(finish(total, shape), {
    op: "mean",
    inputs: [x],
    backward: (gradient) => {
      // Scaled while it is small.
      const share = gradient.device.allocate(gradient.shape, gradient.dtype);
      kernels.affine(gradient.span, share.span, 1 / count, 0);
      const dx = spread(share, kept, from);
      share.dispose();
      return [dx];
    },
  });
}

/**
 * Largest element. Equal largest ones share the gradient evenly, as in `torch.amax`.
 *
 * @throws ShapeError for dims that `x` has not, or named twice, and over no elements.
 */
export function max(x: Tensor, options: ReduceOptions = {}): Tensor {
  const { over, kept, shape, count } = reductionOf(x, options, "max()");
  if (count === 0 && numelOf(shape) > 0) {
    throw new ShapeError(
      `max() failed: shape ${showShape(x.shape)} has no elements to choose from, allowed are extents >= 1`,
    );
  }
  const from = x.shape;
  const out = finish(reduceOver("max", x, over), shape);
  return x.device.record(out, {
    op: "max",
    inputs: [x],
    saved: [x, out],
    backward: (gradient, [input, top]) => {
      const { kernels } = gradient.device.backend;
      const small = broadcastStrides(kept, from);
      const contiguous = stridesOf(from);
      const dx = gradient.device.allocate(from, gradient.dtype);
      const whole = { span: dx.span, strides: contiguous };
      kernels.binary(
        "equal",
        { span: input!.span, strides: contiguous },
        { span: top!.span, strides: small },
        dx.span,
        from,
      );
      const ties = reduceOver("sum", dx, over);
      const flat = (tensor: Tensor) => ({ span: tensor.span, strides: [1] });
      kernels.binary("div", flat(gradient), flat(ties), ties.span, [ties.numel]);
      kernels.binary("mul", whole, { span: ties.span, strides: small }, dx.span, from);
      ties.dispose();
      return [dx];
    },
  });
}

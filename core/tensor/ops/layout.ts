/**
 * Operations that move elements without computing: reshape, permute, slice, concat, expand, cast.
 *
 * @module
 */
import { DTYPES, type DType } from "../../contracts/dtype.ts";
import { ShapeError } from "../../contracts/errors.ts";
import {
  broadcastStrides,
  normalizeDim,
  numelOf,
  type Shape,
  sameShape,
  showShape,
  stridesOf,
} from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { sumToShape } from "./broadcast.ts";

/**
 * The same elements in another shape, without a copy. One extent may be -1: it follows from the others.
 *
 * @throws ShapeError when the element counts differ.
 */
export function reshape(x: Tensor, shape: Shape): Tensor {
  const known = shape.reduce((n, extent) => (extent === -1 ? n : n * extent), 1);
  const wild = shape.filter((extent) => extent === -1).length;
  const full = shape.map((extent) => (extent === -1 ? x.numel / known : extent));
  if (
    wild > 1 ||
    numelOf(full) !== x.numel ||
    full.some((extent) => !Number.isInteger(extent) || extent < 0)
  ) {
    throw new ShapeError(
      `reshape() failed: ${showShape(x.shape)} to ${showShape(shape)}, element counts must be equal`,
    );
  }
  const from = x.shape;
  const out = x.device.adopt(x.alias(full));
  return x.device.record(out, {
    op: "reshape",
    inputs: [x],
    backward: (gradient) => [gradient.alias(from)],
  });
}

/** The extents in another order: `out.shape[i] = x.shape[dims[i]]`. @throws ShapeError unless `dims` is a permutation. */
export function permute(x: Tensor, dims: readonly number[]): Tensor {
  const order = dims.map((dim) => normalizeDim(dim, x.shape.length, "permute()"));
  if (order.length !== x.shape.length || new Set(order).size !== order.length) {
    throw new ShapeError(
      `permute() failed: dims ${showShape(dims)} are not a permutation of ${x.shape.length} dims`,
    );
  }
  const out = x.device.adopt(permuted(x, order));
  const inverse = order.map((_, d) => order.indexOf(d));
  return x.device.record(out, {
    op: "permute",
    inputs: [x],
    backward: (gradient) => [permuted(gradient, inverse)],
  });
}

/** Two dims exchanged. */
export function transpose(x: Tensor, dim0: number, dim1: number): Tensor {
  const a = normalizeDim(dim0, x.shape.length, "transpose()");
  const b = normalizeDim(dim1, x.shape.length, "transpose()");
  return permute(
    x,
    x.shape.map((_, d) => (d === a ? b : d === b ? a : d)),
  );
}

/** Elements `[start, end)` along `dim`. @throws ShapeError unless `0 <= start <= end <= extent`. */
export function slice(x: Tensor, dim: number, start: number, end: number): Tensor {
  const d = normalizeDim(dim, x.shape.length, "slice()");
  if (!Number.isInteger(start) || !Number.isInteger(end) || start < 0 || start > end || end > x.shape[d]!) {
    throw new ShapeError(`slice() failed: range [${start}, ${end}) of dim ${d} of ${showShape(x.shape)}`);
  }
  const shape = x.shape.with(d, end - start);
  const strides = stridesOf(x.shape);
  const box = {
    sizes: shape,
    sourceOffset: start * strides[d]!,
    sourceStrides: strides,
    targetOffset: 0,
    targetStrides: stridesOf(shape),
  };
  const out = x.device.result(shape, x.dtype);
  x.device.backend.kernels.copy(x.span, out.span, [box]);
  const from = x.shape;
  return x.device.record(out, {
    op: "slice",
    inputs: [x],
    backward: (gradient) => {
      const dx = gradient.device.allocate(from, gradient.dtype);
      const kernels = gradient.device.backend.kernels;
      kernels.fill(dx.span, 0);
      const { sizes, sourceOffset, sourceStrides, targetOffset, targetStrides } = box;
      kernels.copy(gradient.span, dx.span, [
        {
          sizes,
          sourceOffset: targetOffset,
          sourceStrides: targetStrides,
          targetOffset: sourceOffset,
          targetStrides: sourceStrides,
        },
      ]);
      return [dx];
    },
  });
}

/** Tensors joined along `dim`. @throws ShapeError when there are none or their other extents or dtypes differ. */
export function concat(tensors: readonly Tensor[], dim: number): Tensor {
  const first = tensors[0];
  if (first === undefined) throw new ShapeError("concat() failed: no tensors given");
  const d = normalizeDim(dim, first.shape.length, "concat()");
  for (const tensor of tensors) {
    if (
      !sameShape(tensor.shape.toSpliced(d, 1), first.shape.toSpliced(d, 1)) ||
      tensor.dtype !== first.dtype
    ) {
      throw new ShapeError(
        `concat() failed: ${tensor.dtype} ${showShape(tensor.shape)} does not join ${first.dtype} ${showShape(first.shape)} along dim ${d}`,
      );
    }
  }
  const shape = first.shape.with(
    d,
    tensors.reduce((n, tensor) => n + tensor.shape[d]!, 0),
  );
  const strides = stridesOf(shape);
  const { device } = first;
  const out = device.result(shape, first.dtype);
  let start = 0;
  const starts = tensors.map((tensor) => {
    const at = start * strides[d]!;
    device.backend.kernels.copy(tensor.span, out.span, [
      {
        sizes: tensor.shape,
        sourceOffset: 0,
        sourceStrides: stridesOf(tensor.shape),
        targetOffset: at,
        targetStrides: strides,
      },
    ]);
    start += tensor.shape[d]!;
    return at;
  });
  const shapes = tensors.map((tensor) => tensor.shape);
  return device.record(out, {
    op: "concat",
    inputs: tensors,
    backward: (gradient, _, needs) =>
      shapes.map((sizes, i) => {
        if (!needs[i]) return undefined;
        const part = gradient.device.allocate(sizes, gradient.dtype);
        gradient.device.backend.kernels.copy(gradient.span, part.span, [
          {
            sizes,
            sourceOffset: starts[i]!,
            sourceStrides: strides,
            targetOffset: 0,
            targetStrides: stridesOf(sizes),
          },
        ]);
        return part;
      }),
  });
}

/** The tensor repeated along broadcast dims to `shape` (copied). @throws ShapeError when it does not broadcast to it. */
export function expand(x: Tensor, shape: Shape): Tensor {
  const lead = shape.length - x.shape.length;
  if (lead < 0 || x.shape.some((extent, d) => extent !== 1 && extent !== shape[d + lead])) {
    throw new ShapeError(`expand() failed: ${showShape(x.shape)} does not broadcast to ${showShape(shape)}`);
  }
  const out = x.device.result(shape, x.dtype);
  x.device.backend.kernels.copy(x.span, out.span, [
    {
      sizes: shape,
      sourceOffset: 0,
      sourceStrides: broadcastStrides(x.shape, shape),
      targetOffset: 0,
      targetStrides: stridesOf(shape),
    },
  ]);
  const from = x.shape;
  return x.device.record(out, {
    op: "expand",
    inputs: [x],
    backward: (gradient) => [sumToShape(gradient.alias(), from)],
  });
}

/** Every element converted to `dtype`. Gradients flow between floating dtypes. */
export function cast(x: Tensor, dtype: DType): Tensor {
  const out = x.device.adopt(converted(x, dtype));
  const from = x.dtype;
  if (!DTYPES[from].floating || !DTYPES[dtype].floating) return out;
  return x.device.record(out, {
    op: "cast",
    inputs: [x],
    backward: (gradient) => [converted(gradient, from)],
  });
}

function converted(x: Tensor, dtype: DType): Tensor {
  const out = x.device.allocate(x.shape, dtype);
  x.device.backend.kernels.cast(x.span, out.span);
  return out;
}

function permuted(x: Tensor, order: readonly number[]): Tensor {
  const shape = order.map((d) => x.shape[d]!);
  const strides = stridesOf(x.shape);
  const out = x.device.allocate(shape, x.dtype);
  x.device.backend.kernels.copy(x.span, out.span, [
    {
      sizes: shape,
      sourceOffset: 0,
      sourceStrides: order.map((d) => strides[d]!),
      targetOffset: 0,
      targetStrides: stridesOf(shape),
    },
  ]);
  return out;
}

/**
 * Matrix products: batched `matmul` with broadcasting of the batch, and `linear` with its bias.
 *
 * @module
 */
import { ShapeError } from "../../contracts/errors.ts";
import type { MatmulActivation, MatrixOperand } from "../../contracts/kernels.ts";
import { broadcastShapes, numelOf, sameShape, showShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { gradientSlot } from "./in-place.ts";
import { expand, reshape } from "./layout.ts";

function operand(tensor: Tensor, transposed: boolean, batchStride = 0): MatrixOperand {
  return { span: tensor.span, rowStride: tensor.shape.at(-1)!, batchStride, transposed };
}

/**
 * Matrix product of `a` [..., m, k] and `b` [..., k, n], giving [..., m, n]. Leading dims broadcast.
 *
 * @throws ShapeError when an operand has fewer than two dims, the inner extents or dtypes differ, or the leading dims do
 * not broadcast.
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  if (a.shape.length < 2 || b.shape.length < 2 || a.shape.at(-1) !== b.shape.at(-2) || a.dtype !== b.dtype) {
    throw new ShapeError(
      `matmul() failed: ${a.dtype} ${showShape(a.shape)} times ${b.dtype} ${showShape(b.shape)}, allowed are [..., m, k] times [..., k, n] of one dtype`,
    );
  }
  const [m, k, n] = [a.shape.at(-2)!, a.shape.at(-1)!, b.shape.at(-1)!];
  const lead = (tensor: Tensor) => tensor.shape.slice(0, -2);
  const batch = numelOf(lead(a));
  if (!sameShape(lead(a), lead(b))) {
    if (b.shape.length === 2) {
      // One matrix for all: the rows of every batch form one tall matrix.
      return reshape(matmul(reshape(a, [batch * m, k]), b), [...lead(a), m, n]);
    }
    const common = broadcastShapes(lead(a), lead(b), "matmul()");
    const whole = (tensor: Tensor) => {
      const shape = [...common, ...tensor.shape.slice(-2)];
      return sameShape(shape, tensor.shape) ? tensor : expand(tensor, shape);
    };
    return matmul(whole(a), whole(b));
  }
  const product = (
    x: Tensor,
    tx: boolean,
    y: Tensor,
    ty: boolean,
    out: Tensor,
    rows: number,
    columns: number,
    inner: number,
  ) => {
    const whole = (t: Tensor) => t.shape.at(-1)! * t.shape.at(-2)!;
    out.device.backend.kernels.matmul({
      a: operand(x, tx, whole(x)),
      b: operand(y, ty, whole(y)),
      out: operand(out, false, whole(out)),
      batch,
      m: rows,
      n: columns,
      k: inner,
    });
    return out;
  };
  const out = a.device.result([...lead(a), m, n], a.dtype);
  product(a, false, b, false, out, m, n, k);
  const [aShape, bShape] = [a.shape, b.shape];
  return a.device.record(out, {
    op: "matmul",
    inputs: [a, b],
    saved: [b.requiresGrad ? a : undefined, a.requiresGrad ? b : undefined],
    backward: (gradient, [x, y], needs) => [
      needs[0]
        ? product(gradient, false, y!, true, gradient.device.allocate(aShape, gradient.dtype), m, k, n)
        : undefined,
      needs[1]
        ? product(x!, true, gradient, false, gradient.device.allocate(bShape, gradient.dtype), k, n, m)
        : undefined,
    ],
  });
}

/** Options of `linear`. */
export interface LinearOptions {
  /** The weight is [in, out], as in GPT-2's Conv1D, not [out, in], as in PyTorch's Linear. */
  readonly weightInOut?: boolean;
  /** Applied to the result in the same kernel; `geluTanh` is GPT-2's approximation. None by default. */
  readonly activation?: MatmulActivation | undefined;
}

/**
 * `activation(x @ weight^T + bias)` over the last dim of `x` [..., in], with `weight` [out, in] and `bias` [out].
 *
 * @throws ShapeError when the extents or dtypes do not fit.
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor, options: LinearOptions = {}): Tensor {
  const inOut = options.weightInOut ?? false;
  const [k, n] = inOut ? [weight.shape[0], weight.shape[1]] : [weight.shape[1], weight.shape[0]];
  if (
    weight.shape.length !== 2 ||
    x.shape.length === 0 ||
    x.shape.at(-1) !== k ||
    x.dtype !== weight.dtype ||
    (bias !== undefined && bias.dtype !== x.dtype) ||
    (bias !== undefined && !sameShape(bias.shape, [n!]))
  ) {
    const given = [x, weight, ...(bias === undefined ? [] : [bias])]
      .map((t) => `${t.dtype} ${showShape(t.shape)}`)
      .join(", ");
    throw new ShapeError(
      `linear() failed: ${given}, allowed are [..., in], ${inOut ? "[in, out]" : "[out, in]"} and a bias of [out], of one dtype`,
    );
  }
  const rows = numelOf(x.shape.slice(0, -1));
  const columns = n!;
  const inner = k!;
  const matrix = (t: Tensor, rowStride: number, transposed: boolean): MatrixOperand => ({
    span: t.span,
    rowStride,
    batchStride: 0,
    transposed,
  });
  const { device } = x;
  const { activation } = options;
  const shape = [...x.shape.slice(0, -1), columns];
  const out = device.result(shape, x.dtype);
  const inputs = bias === undefined ? [x, weight] : [x, weight, bias];
  // Its gradient follows from what the activation was applied to; nobody else needs that.
  const before =
    activation !== undefined && device.gradEnabled && inputs.some((input) => input.requiresGrad)
      ? device.allocate(shape, x.dtype)
      : undefined;
  device.backend.kernels.matmul({
    a: matrix(x, inner, false),
    b: matrix(weight, inOut ? columns : inner, !inOut),
    out: matrix(out, columns, false),
    batch: 1,
    m: rows,
    n: columns,
    k: inner,
    ...(bias === undefined ? {} : { bias: bias.span }),
    ...(activation === undefined ? {} : { activation }),
    ...(before === undefined ? {} : { preactivation: before.span }),
  });
  const [xShape, weightShape] = [x.shape, weight.shape];
  device.record(out, {
    op: "linear",
    inputs,
    // A frozen weight does not hold its input, nor an input without gradient the weight.
    saved: [weight.requiresGrad ? x : undefined, x.requiresGrad ? weight : undefined, before],
    backward: (upstream, [input, w, activated], needs) => {
      const kernels = device.backend.kernels;
      let gradient = upstream;
      if (activation !== undefined) {
        gradient = gradientSlot(upstream);
        const { span } = activated!;
        kernels.unaryBackward(activation, span, span, upstream.span, gradient.span);
      }
      let dx: Tensor | undefined;
      let dw: Tensor | undefined;
      let db: Tensor | undefined;
      if (needs[0]) {
        dx = device.allocate(xShape, gradient.dtype);
        kernels.matmul({
          a: matrix(gradient, columns, false),
          b: matrix(w!, inOut ? columns : inner, inOut),
          out: matrix(dx, inner, false),
          batch: 1,
          m: rows,
          n: inner,
          k: columns,
        });
      }
      if (needs[1]) {
        dw = device.allocate(weightShape, gradient.dtype);
        const [left, right] = inOut ? [input!, gradient] : [gradient, input!];
        const [m, width] = inOut ? [inner, columns] : [columns, inner];
        kernels.matmul({
          a: matrix(left, m, true),
          b: matrix(right, width, false),
          out: matrix(dw, width, false),
          batch: 1,
          m,
          n: width,
          k: rows,
        });
      }
      if (needs[2]) {
        db = device.allocate([columns], gradient.dtype);
        kernels.reduce("sum", gradient.span, db.span, 1, rows, columns);
      }
      if (gradient !== upstream) gradient.dispose();
      return [dx, dw, db];
    },
  });
  before?.dispose();
  return out;
}

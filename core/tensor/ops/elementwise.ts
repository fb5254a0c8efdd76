/**
 * Elementwise operations with NumPy broadcasting and their gradients.
 *
 * @module
 */
import { ShapeError } from "../../contracts/errors.ts";
import type { BinaryOp, UnaryOp } from "../../contracts/kernels.ts";
import { broadcastShapes, type Shape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { strided, sumToShape } from "./broadcast.ts";
import { gradientSlot } from "./in-place.ts";

/** Unary functions whose gradient needs the input; the others' follows from the output alone. */
const NEEDS_INPUT: ReadonlySet<UnaryOp> = new Set(["abs", "log", "gelu", "geluTanh", "silu"]);

function unary(op: UnaryOp, x: Tensor): Tensor {
  const out = x.device.result(x.shape, x.dtype);
  x.device.backend.kernels.unary(op, x.span, out.span);
  return x.device.record(out, {
    op,
    inputs: [x],
    saved: [NEEDS_INPUT.has(op) ? x : out],
    backward: (gradient, [saved]) => {
      const dx = gradientSlot(gradient);
      gradient.device.backend.kernels.unaryBackward(op, saved!.span, saved!.span, gradient.span, dx.span);
      return [dx];
    },
  });
}

/** `-x`. */
export function neg(x: Tensor): Tensor {
  return affine("neg", x, -1, 0);
}

/** Absolute value; its gradient at 0 is 0. */
export function abs(x: Tensor): Tensor {
  return unary("abs", x);
}

/** e to the x. */
export function exp(x: Tensor): Tensor {
  return unary("exp", x);
}

/** Natural logarithm. */
export function log(x: Tensor): Tensor {
  return unary("log", x);
}

/** Square root. */
export function sqrt(x: Tensor): Tensor {
  return unary("sqrt", x);
}

/** Hyperbolic tangent. */
export function tanh(x: Tensor): Tensor {
  return unary("tanh", x);
}

/** Logistic function. */
export function sigmoid(x: Tensor): Tensor {
  return unary("sigmoid", x);
}

/** max(x, 0); its gradient at 0 is 0. */
export function relu(x: Tensor): Tensor {
  return unary("relu", x);
}

/** Gaussian error linear unit; `"tanh"` is the approximation that GPT-2 uses (`gelu_new`). */
export function gelu(x: Tensor, approximate: "none" | "tanh" = "none"): Tensor {
  return unary(approximate === "tanh" ? "geluTanh" : "gelu", x);
}

/** x * sigmoid(x). */
export function silu(x: Tensor): Tensor {
  return unary("silu", x);
}

function affine(op: string, x: Tensor, scale: number, shift: number): Tensor {
  const out = x.device.result(x.shape, x.dtype);
  x.device.backend.kernels.affine(x.span, out.span, scale, shift);
  return x.device.record(out, {
    op,
    inputs: [x],
    backward: (gradient) => {
      if (scale === 1) return [gradient];
      const dx = gradientSlot(gradient);
      gradient.device.backend.kernels.affine(gradient.span, dx.span, scale, 0);
      return [dx];
    },
  });
}

/** The kernel result of `op` on two operands, owned by the caller, off the tape. */
function combine(op: BinaryOp, a: Tensor, b: Tensor, shape: Shape): Tensor {
  const out = a.device.allocate(shape, a.dtype);
  a.device.backend.kernels.binary(op, strided(a, shape), strided(b, shape), out.span, shape);
  return out;
}

function requireSameDType(op: string, a: Tensor, b: Tensor): void {
  if (a.dtype === b.dtype) return;
  throw new ShapeError(`${op}() failed: dtypes "${a.dtype}" and "${b.dtype}" differ, cast one of them`);
}

type PairGradient = (gradient: Tensor, a: Tensor, b: Tensor, out: Tensor) => Tensor;

function binary(
  op: BinaryOp,
  a: Tensor,
  b: Tensor,
  gradients?: readonly [PairGradient, PairGradient],
  saves: "none" | "inputs" | "all" = "inputs",
): Tensor {
  requireSameDType(op, a, b);
  const shape = broadcastShapes(a.shape, b.shape, `${op}()`);
  const out = a.device.adopt(combine(op, a, b, shape));
  if (gradients === undefined) return out;
  const shapes = [a.shape, b.shape];
  return a.device.record(out, {
    op,
    inputs: [a, b],
    saved: saves === "none" ? [] : saves === "inputs" ? [a, b] : [a, b, out],
    backward: (gradient, saved, needs) =>
      gradients.map((rule, i) =>
        needs[i] ? sumToShape(rule(gradient, saved[0]!, saved[1]!, saved[2]!), shapes[i]!) : undefined,
      ),
  });
}

const pass: PairGradient = (gradient) => gradient.alias();

/** a + b. */
export function add(a: Tensor, b: Tensor | number): Tensor {
  if (typeof b === "number") return affine("add", a, 1, b);
  return binary("add", a, b, [pass, pass], "none");
}

/** a - b. */
export function sub(a: Tensor, b: Tensor | number): Tensor {
  if (typeof b === "number") return affine("sub", a, 1, -b);
  return binary("sub", a, b, [pass, (gradient) => negated(gradient)], "none");
}

/** a * b. */
export function mul(a: Tensor, b: Tensor | number): Tensor {
  if (typeof b === "number") return affine("mul", a, b, 0);
  return binary("mul", a, b, [
    (gradient, _, y) => combine("mul", gradient, y, gradient.shape),
    (gradient, x) => combine("mul", gradient, x, gradient.shape),
  ]);
}

/** a / b. */
export function div(a: Tensor, b: Tensor | number): Tensor {
  if (typeof b === "number") return affine("div", a, 1 / b, 0);
  return binary("div", a, b, [
    (gradient, _, y) => combine("div", gradient, y, gradient.shape),
    (gradient, x, y) => {
      const product = combine("mul", gradient, x, gradient.shape);
      const once = combine("div", product, y, gradient.shape);
      const twice = combine("div", once, y, gradient.shape);
      product.dispose();
      once.dispose();
      return negate(twice);
    },
  ]);
}

/** a to the power b. Gradients follow the formulas: with respect to b for a > 0 only; with respect to a NaN where both are 0. */
export function pow(a: Tensor, b: Tensor | number): Tensor {
  if (typeof b === "number") {
    using exponent = a.device.full([], b, { dtype: a.dtype }).keep();
    return pow(a, exponent);
  }
  return binary(
    "pow",
    a,
    b,
    [
      (gradient, x, y) => {
        const less = affineCopy(y, 1, -1);
        const power = combine("pow", x, less, gradient.shape);
        const slope = combine("mul", power, y, gradient.shape);
        const out = combine("mul", gradient, slope, gradient.shape);
        for (const tensor of [less, power, slope]) tensor.dispose();
        return out;
      },
      (gradient, x, _, out) => {
        const log = x.device.allocate(x.shape, x.dtype);
        x.device.backend.kernels.unary("log", x.span, log.span);
        const slope = combine("mul", out, log, gradient.shape);
        const result = combine("mul", gradient, slope, gradient.shape);
        log.dispose();
        slope.dispose();
        return result;
      },
    ],
    "all",
  );
}

/** The larger of a and b; equal elements share the gradient by halves, as in PyTorch. */
export function maximum(a: Tensor, b: Tensor): Tensor {
  return binary("maximum", a, b, [picked("greater", false), picked("greater", true)]);
}

/** The smaller of a and b; equal elements share the gradient by halves, as in PyTorch. */
export function minimum(a: Tensor, b: Tensor): Tensor {
  return binary("minimum", a, b, [picked("less", false), picked("less", true)]);
}

/** 1 where a equals b, else 0, in their dtype. No gradient flows. */
export function equal(a: Tensor, b: Tensor): Tensor {
  return binary("equal", a, b);
}

/** 1 where a > b, else 0, in their dtype. No gradient flows. */
export function greater(a: Tensor, b: Tensor): Tensor {
  return binary("greater", a, b);
}

/** 1 where a < b, else 0, in their dtype. No gradient flows. */
export function less(a: Tensor, b: Tensor): Tensor {
  return binary("less", a, b);
}

/** Elements of `a` where `condition` is not 0, of `b` elsewhere. */
export function where(condition: Tensor, a: Tensor, b: Tensor): Tensor {
  requireSameDType("where", a, b);
  const shape = broadcastShapes(condition.shape, broadcastShapes(a.shape, b.shape, "where()"), "where()");
  const out = a.device.result(shape, a.dtype);
  const kernels = a.device.backend.kernels;
  kernels.where(strided(condition, shape), strided(a, shape), strided(b, shape), out.span, shape);
  const shapes = [a.shape, b.shape];
  return a.device.record(out, {
    op: "where",
    inputs: [a, b],
    saved: [condition],
    backward: (gradient, [mask], needs) => {
      const zero = gradient.device.allocate([], gradient.dtype);
      gradient.device.backend.kernels.fill(zero.span, 0);
      const choose = (x: Tensor, y: Tensor): Tensor => {
        const chosen = gradient.device.allocate(shape, gradient.dtype);
        const operands = [mask!, x, y].map((tensor) => strided(tensor, shape));
        gradient.device.backend.kernels.where(operands[0]!, operands[1]!, operands[2]!, chosen.span, shape);
        return chosen;
      };
      const gradients = [
        needs[0] ? sumToShape(choose(gradient, zero), shapes[0]!) : undefined,
        needs[1] ? sumToShape(choose(zero, gradient), shapes[1]!) : undefined,
      ];
      zero.dispose();
      return gradients;
    },
  });
}

/** The gradient rule of maximum and minimum for one side: 1 where it wins, a half where both are equal. */
function picked(op: "greater" | "less", second: boolean): PairGradient {
  return (gradient, a, b) => {
    const [x, y] = second ? [b, a] : [a, b];
    const wins = combine(op, x, y, gradient.shape);
    const ties = combine("equal", x, y, gradient.shape);
    const half = affineCopy(ties, 0.5, 0);
    const share = combine("add", wins, half, gradient.shape);
    const out = combine("mul", gradient, share, gradient.shape);
    for (const tensor of [wins, ties, half, share]) tensor.dispose();
    return out;
  };
}

function affineCopy(x: Tensor, scale: number, shift: number): Tensor {
  const out = x.device.allocate(x.shape, x.dtype);
  x.device.backend.kernels.affine(x.span, out.span, scale, shift);
  return out;
}

function negated(x: Tensor): Tensor {
  return affineCopy(x, -1, 0);
}

/** Negates a tensor that the caller owns, in place. */
function negate(x: Tensor): Tensor {
  x.device.backend.kernels.affine(x.span, x.span, -1, 0);
  return x;
}

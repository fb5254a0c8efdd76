/**
 * Elementwise kernels in plain TypeScript: unary functions and their gradients, affine, binary, where, fill.
 *
 * @module
 */

import type { Span } from "../../../core/contracts/backend.ts";
import { ShapeError } from "../../../core/contracts/errors.ts";
import type { BinaryOp, StridedOperand, UnaryOp } from "../../../core/contracts/kernels.ts";
import { fillElements } from "../../../core/runtime/half/fill.ts";
import { isHalf } from "../../../core/runtime/half/plain.ts";
import { numelOf } from "../../../core/tensor/shape.ts";
import { erf } from "./erf.ts";
import { elements, type Floats, floats, floatsOf, type Heap, requireLength, requireSame } from "./heap.ts";
import { collapse, forEachRow, requireWithin } from "./strides.ts";

const SQRT_HALF = Math.SQRT1_2;
const INV_SQRT_2PI = 0.3989422804014327;
/** 2 sqrt(2 / pi). */
const GELU_SLOPE = 1.5957691216057308;
const GELU_CUBIC = 0.044715;

/** Each function. */
export const UNARY: Readonly<Record<UnaryOp, (x: number) => number>> = {
  neg: (x) => -x,
  abs: Math.abs,
  exp: Math.exp,
  log: Math.log,
  sqrt: Math.sqrt,
  tanh: Math.tanh,
  sigmoid,
  relu: (x) => Math.max(0, x),
  gelu: (x) => x * normalCdf(x),
  // 0.5 (1 + tanh(u)) is sigmoid(2 u), which does not cancel for negative x.
  geluTanh: (x) => x * sigmoid(GELU_SLOPE * (x + GELU_CUBIC * x * x * x)),
  silu: (x) => x * sigmoid(x),
};

/** Each derivative, from the argument and the value. */
export const DERIVATIVE: Readonly<Record<UnaryOp, (x: number, y: number) => number>> = {
  neg: () => -1,
  abs: (x) => Math.sign(x),
  exp: (_, y) => y,
  log: (x) => 1 / x,
  sqrt: (_, y) => 0.5 / y,
  tanh: (_, y) => 1 - y * y,
  sigmoid: (_, y) => y * (1 - y),
  relu: (x) => (x > 0 ? 1 : 0),
  gelu: (x) => normalCdf(x) + x * INV_SQRT_2PI * Math.exp(-0.5 * x * x),
  geluTanh: (x) => {
    const s = sigmoid(GELU_SLOPE * (x + GELU_CUBIC * x * x * x));
    return s * (1 + x * (1 - s) * GELU_SLOPE * (1 + 3 * GELU_CUBIC * x * x));
  },
  silu: (x) => {
    const s = sigmoid(x);
    return s * (1 + x * (1 - s));
  },
};

const BINARY: Readonly<Record<BinaryOp, (a: number, b: number) => number>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  pow: (a, b) => a ** b,
  maximum: Math.max,
  minimum: Math.min,
  equal: (a, b) => (a === b ? 1 : 0),
  greater: (a, b) => (a > b ? 1 : 0),
  less: (a, b) => (a < b ? 1 : 0),
};

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

function normalCdf(x: number): number {
  return 0.5 * (1 + erf(x * SQRT_HALF));
}

/** Writes `value` to every element, of any dtype. */
export function fill(heap: Heap, out: Span, value: number): void {
  fillElements(heap.view(out), out.dtype, value);
}

/** See `Kernels.unary`. */
export function unary(heap: Heap, op: UnaryOp, x: Span, out: Span): void {
  requireSame(op, [x, out]);
  const source = floats(heap, op, x);
  const target = floats(heap, op, out);
  const f = UNARY[op];
  for (let i = 0; i < target.length; i++) target[i] = f(source[i]!);
}

/** See `Kernels.unaryBackward`. */
export function unaryBackward(heap: Heap, op: UnaryOp, x: Span, y: Span, gradient: Span, out: Span): void {
  const kernel = `${op} backward`;
  requireSame(kernel, [x, y, gradient, out]);
  const xs = floats(heap, kernel, x);
  const ys = floats(heap, kernel, y);
  const gradients = floats(heap, kernel, gradient);
  const target = floats(heap, kernel, out);
  const f = DERIVATIVE[op];
  for (let i = 0; i < target.length; i++) target[i] = gradients[i]! * f(xs[i]!, ys[i]!);
}

/** See `Kernels.affine`. */
export function affine(heap: Heap, x: Span, out: Span, scale: number, shift: number): void {
  requireSame("affine", [x, out]);
  const source = floats(heap, "affine", x);
  const target = floats(heap, "affine", out);
  for (let i = 0; i < target.length; i++) target[i] = source[i]! * scale + shift;
}

/** See `Kernels.binary`. */
export function binary(
  heap: Heap,
  op: BinaryOp,
  a: StridedOperand,
  b: StridedOperand,
  out: Span,
  sizes: readonly number[],
): void {
  const target = floatsOf(heap, op, out, numelOf(sizes));
  const left = operand(heap, op, a, sizes);
  const right = operand(heap, op, b, sizes);
  const f = BINARY[op];
  const loop = collapse(sizes, [a.strides, b.strides]);
  const [strideA, strideB] = loop.strides as [number, number];
  let o = 0;
  forEachRow(loop, ([i, j]) => {
    let p = i!;
    let q = j!;
    for (const end = o + loop.length; o < end; o++, p += strideA, q += strideB)
      target[o] = f(left[p]!, right[q]!);
  });
}

/** See `Kernels.where`. The condition may have any dtype. */
export function where(
  heap: Heap,
  condition: StridedOperand,
  a: StridedOperand,
  b: StridedOperand,
  out: Span,
  sizes: readonly number[],
): void {
  requireLength("where", out, numelOf(sizes));
  for (const { span, strides } of [condition, a, b]) requireWithin("where", span, 0, sizes, strides);
  if (a.span.dtype !== out.dtype || b.span.dtype !== out.dtype) {
    throw new ShapeError(
      `cpu where: operands are ${a.span.dtype} and ${b.span.dtype}, the result is ${out.dtype}`,
    );
  }
  const target = elements(heap, "where", out);
  const left = elements(heap, "where", a.span);
  const right = elements(heap, "where", b.span);
  const test = isHalf(condition.span.dtype)
    ? elements(heap, "where", condition.span)
    : heap.view(condition.span);
  // Of a 16-bit float's bits all but the sign tell it from zero.
  const bits = isHalf(condition.span.dtype) ? 0x7fff : undefined;
  const loop = collapse(sizes, [condition.strides, a.strides, b.strides]);
  const [strideC, strideA, strideB] = loop.strides as [number, number, number];
  let o = 0;
  forEachRow(loop, ([h, i, j]) => {
    for (let n = 0; n < loop.length; n++, o++) {
      const value = Number(test[h! + n * strideC]!);
      const chosen = (bits === undefined ? value : value & bits) !== 0;
      target[o] = chosen ? left[i! + n * strideA]! : right[j! + n * strideB]!;
    }
  });
}

function operand(heap: Heap, kernel: string, of: StridedOperand, sizes: readonly number[]): Floats {
  requireWithin(kernel, of.span, 0, sizes, of.strides);
  return floats(heap, kernel, of.span);
}

/**
 * Conformance of elementwise kernels.
 *
 * @module
 */
import { test } from "bun:test";
import type { BinaryOp, UnaryOp } from "../../../core/contracts/kernels.ts";
import {
  type Case,
  cases,
  contiguous,
  dot,
  type FloatDType,
  indicesOf,
  isHalf,
  type Suite,
  UNIT,
} from "./harness.ts";

/** erf by its Maclaurin series near 0 and a continued fraction for erfc elsewhere. */
function erf(x: number): number {
  const a = Math.abs(x);
  if (a < 2.5) {
    let term = x;
    let sum = x;
    for (let n = 1; n < 80; n++) {
      term *= (-x * x) / n;
      sum += term / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = a;
  for (let n = 200; n > 0; n--) fraction = a + n / 2 / fraction;
  return Math.sign(x) * (1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / fraction);
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

/** Each function by its definition. */
export const UNARY: Record<UnaryOp, (x: number) => number> = {
  neg: (x) => 0 - x,
  abs: (x) => (x < 0 ? -x : x),
  exp: Math.exp,
  log: Math.log,
  sqrt: Math.sqrt,
  tanh: (x) => 1 - 2 / (Math.exp(2 * x) + 1),
  sigmoid,
  relu: (x) => Math.max(x, 0),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.sqrt(2))),
  geluTanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  silu: (x) => x / (1 + Math.exp(-x)),
};

const BINARY: Record<BinaryOp, (a: number, b: number) => number> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  pow: (a, b) => a ** b,
  maximum: (a, b) => Math.max(a, b),
  minimum: (a, b) => Math.min(a, b),
  equal: (a, b) => Number(a === b),
  greater: (a, b) => Number(a > b),
  less: (a, b) => Number(a < b),
};

const SIZES = [0, 1, 2, 3, 4, 5, 17, 1000, 4099];

function inputs(test: Case, op: UnaryOp, dtype: FloatDType, length: number): number[] {
  return op === "log" || op === "sqrt"
    ? test.numbers(dtype, length, 0.3, 5)
    : test.numbers(dtype, length, -6, 6);
}

/** Central difference with Richardson extrapolation: the derivative without knowing its formula. */
function derivative(f: (x: number) => number, x: number): number {
  const slope = (h: number): number => (f(x + h) - f(x - h)) / (2 * h);
  return (4 * slope(5e-4) - slope(1e-3)) / 3;
}

export function elementwiseConformance(suite: Suite): void {
  for (const op of Object.keys(UNARY) as UnaryOp[]) {
    test(`unary ${op} equals the oracle, in place too`, () =>
      cases(suite, SIZES.length, async (test, dtype, index) => {
        const values = inputs(test, op, dtype, SIZES[index]!);
        const x = test.put(dtype, values);
        const out = test.out(dtype, values.length);
        test.backend.kernels.unary(op, x, out);
        await test.expectClose(out, values.map(UNARY[op]), op);
        test.backend.kernels.unary(op, x, x);
        await test.expectClose(x, values.map(UNARY[op]), `${op} in place`);
      }));

    test(`unaryBackward ${op} is the gradient times the slope, in place too`, () =>
      cases(suite, SIZES.length, async (test, dtype, index) => {
        // Away from 0, where abs and relu have no slope to difference.
        const values = inputs(test, op, dtype, SIZES[index]!).map((x) => (Math.abs(x) < 0.01 ? 0.5 : x));
        const gradients = test.numbers(dtype, values.length);
        const x = test.put(dtype, values);
        const y = test.put(dtype, values.map(UNARY[op]));
        const gradient = test.put(dtype, gradients);
        const out = test.out(dtype, values.length);
        test.backend.kernels.unaryBackward(op, x, y, gradient, out);
        const want = values.map((v, i) => gradients[i]! * derivative(UNARY[op], v));
        // Of 16-bit floats the value is given rounded, and so is the slope that follows from it.
        const tolerance = dtype === "float64" ? 1e-8 : isHalf(dtype) ? 6 * UNIT[dtype] : 5e-6;
        await test.expectClose(out, want, op, { tolerance });
        test.backend.kernels.unaryBackward(op, x, y, gradient, gradient);
        await test.expectClose(gradient, want, `${op} in place`, { tolerance });
      }));
  }

  test("unary functions keep not-a-number and saturate at infinity", () =>
    cases(suite, 1, async (test, dtype) => {
      const { NaN: nan, POSITIVE_INFINITY: inf, NEGATIVE_INFINITY: low } = Number;
      const x = test.put(dtype, [nan, inf, low, nan, inf, low, 1000, -1000]);
      const out = test.out(dtype, 8);
      for (const [op, atInfinity, atLow] of [
        ["exp", inf, 0],
        ["tanh", 1, -1],
        ["sigmoid", 1, 0],
        ["relu", inf, 0],
      ] as const) {
        test.backend.kernels.unary(op, x, out);
        const want = [
          nan,
          atInfinity,
          atLow,
          nan,
          atInfinity,
          atLow,
          op === "relu" ? 1000 : atInfinity,
          atLow,
        ];
        await test.expectClose(out, want, op);
      }
    }));

  test("affine is x * scale + shift, in place too", () =>
    cases(suite, SIZES.length, async (test, dtype, index) => {
      const values = test.numbers(dtype, SIZES[index]!);
      const [scale, shift] = test.numbers(dtype, 2) as [number, number];
      const x = test.put(dtype, values);
      const out = test.out(dtype, values.length);
      const want = values.map((v) => v * scale + shift);
      test.backend.kernels.affine(x, out, scale, shift);
      await test.expectClose(out, want, "affine", { scale: values.map(() => 20) });
      test.backend.kernels.affine(x, x, scale, shift);
      await test.expectClose(x, want, "affine in place", { scale: values.map(() => 20) });
    }));

  for (const op of Object.keys(BINARY) as BinaryOp[]) {
    test(`binary ${op} equals the oracle over every kind of broadcast`, () =>
      cases(suite, 24, async (test, dtype) => {
        const sizes = Array.from({ length: test.integer(0, 4) }, () => test.extent(test.pick([3, 20])));
        const count = sizes.reduce((a, b) => a * b, 1);
        const operands = [0, 1].map(() => {
          const strides = broadcastStrides(test, sizes);
          const length = sizes.includes(0)
            ? 0
            : 1 + sizes.reduce((sum, s, d) => sum + (s - 1) * strides[d]!, 0);
          const low = op === "pow" || op === "div" ? 0.3 : -3;
          const values = test.numbers(dtype, length, low, 3).map((v) => (test.uniform() < 0.1 ? 1 : v));
          return { strides, values, span: test.put(dtype, values) };
        });
        const [a, b] = operands as [(typeof operands)[0], (typeof operands)[0]];
        const out = test.out(dtype, count);
        test.backend.kernels.binary(op, a, b, out, sizes);
        const want = [...indicesOf(sizes)].map((index) =>
          BINARY[op](a.values[dot(index, a.strides)]!, b.values[dot(index, b.strides)]!),
        );
        await test.expectClose(out, want, `${op} over [${sizes}]`);
        if (a.span.length === count && a.strides.join() === contiguous(sizes).join()) {
          test.backend.kernels.binary(op, a, b, a.span, sizes);
          await test.expectClose(a.span, want, `${op} in place over [${sizes}]`);
        }
      }));
  }

  test("where chooses by the condition over every kind of broadcast", () =>
    cases(suite, 24, async (test, dtype) => {
      const sizes = Array.from({ length: test.integer(0, 3) }, () => test.extent(20));
      const count = sizes.reduce((a, b) => a * b, 1);
      const operand = (kind: FloatDType | "bool") => {
        const strides = broadcastStrides(test, sizes);
        const length = sizes.includes(0)
          ? 0
          : 1 + sizes.reduce((sum, s, d) => sum + (s - 1) * strides[d]!, 0);
        const values =
          kind === "bool" ? Array.from({ length }, () => test.integer(0, 1)) : test.numbers(kind, length);
        return { strides, values, span: test.put(kind, values) };
      };
      const [condition, a, b] = [operand("bool"), operand(dtype), operand(dtype)];
      const out = test.out(dtype, count);
      test.backend.kernels.where(condition, a, b, out, sizes);
      const want = [...indicesOf(sizes)].map((index) =>
        condition.values[dot(index, condition.strides)] !== 0
          ? a.values[dot(index, a.strides)]!
          : b.values[dot(index, b.strides)]!,
      );
      await test.expectClose(out, want, `where over [${sizes}]`);
    }));
}

/** Contiguous strides with some dimensions broadcast, or those of a transposed operand. */
function broadcastStrides(test: Case, sizes: readonly number[]): number[] {
  const kind = test.integer(0, 3);
  if (kind === 0) return contiguous(sizes);
  if (kind === 1) return sizes.map(() => 0);
  if (kind === 2) return contiguous(sizes.toReversed()).toReversed();
  const kept = sizes.map((size) => (test.uniform() < 0.5 ? size : 1));
  return contiguous(kept).map((stride, d) => (kept[d] === 1 ? 0 : stride));
}

// Functions of one argument over vectors of four float32, and their derivatives. `op` is a constant wherever they are
// inlined.

import { exp4, fma, sigmoid4, tanh4 } from "./vector";

// Order fixed with the host: see UNARY in fast/elementwise.ts.
// @ts-ignore: decorator
@inline
export const EXP: i32 = 0;
// @ts-ignore: decorator
@inline
export const TANH: i32 = 1;
// @ts-ignore: decorator
@inline
export const SIGMOID: i32 = 2;
// @ts-ignore: decorator
@inline
export const SILU: i32 = 3;
// @ts-ignore: decorator
@inline
export const GELU_TANH: i32 = 4;
// @ts-ignore: decorator
@inline
export const RELU: i32 = 5;

/** gelu_tanh(x) = x * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)), as 0.5 (1 + tanh(u)) = sigmoid(2 u). */
const GELU_SLOPE: f32 = 1.5957691216057308;
const GELU_CUBIC: f32 = 0.044715;

// @ts-ignore: decorator
@inline
function geluGate(x: v128): v128 {
  const u = f32x4.mul(x, fma(f32x4.mul(x, x), f32x4.splat(GELU_SLOPE * GELU_CUBIC), f32x4.splat(GELU_SLOPE)));
  return sigmoid4(u);
}

// @ts-ignore: decorator
@inline
export function apply(op: i32, x: v128): v128 {
  if (op == EXP) return exp4(x);
  if (op == TANH) return tanh4(x);
  if (op == SIGMOID) return sigmoid4(x);
  if (op == SILU) return f32x4.mul(x, sigmoid4(x));
  if (op == GELU_TANH) return f32x4.mul(x, geluGate(x));
  return f32x4.pmax(x, f32x4.splat(0));
}

// @ts-ignore: decorator
@inline
export function slope(op: i32, x: v128, y: v128): v128 {
  const one = f32x4.splat(1);
  if (op == EXP) return y;
  if (op == TANH) return f32x4.sub(one, f32x4.mul(y, y));
  if (op == SIGMOID) return f32x4.mul(y, f32x4.sub(one, y));
  if (op == SILU || op == GELU_TANH) return gateSlope(op, x, gateOf(op, x));
  return v128.and(one, f32x4.gt(x, f32x4.splat(0)));
}

/** The factor s of functions x * s(x). */
// @ts-ignore: decorator
@inline
export function gateOf(op: i32, x: v128): v128 {
  return op == SILU ? sigmoid4(x) : geluGate(x);
}

/** The derivative of x * s(x) from s. */
// @ts-ignore: decorator
@inline
export function gateSlope(op: i32, x: v128, s: v128): v128 {
  const one = f32x4.splat(1);
  if (op == SILU) return f32x4.mul(s, fma(x, f32x4.sub(one, s), one));
  const du = fma(f32x4.mul(x, x), f32x4.splat(3 * GELU_SLOPE * GELU_CUBIC), f32x4.splat(GELU_SLOPE));
  return f32x4.mul(s, fma(f32x4.mul(x, f32x4.sub(one, s)), du, one));
}

/**
 * Scalar mathematics that WGSL lacks or leaves open: not-a-number, saturation, the error function.
 *
 * Compilers may assume that nothing is NaN, so tests look at bits; NaN and infinity cannot be written as constants, so
 * they come from variables. Functions are written for the alias `V`, a scalar or a vector of four.
 *
 * @module
 */
import type { UnaryOp } from "../../../core/contracts/kernels.ts";

/** Numbers without literals. */
export const SPECIAL = `
var<private> nan_bits: u32 = 0x7fc00000u;
var<private> low_bits: u32 = 0xff800000u;
fn nan() -> f32 { return bitcast<f32>(nan_bits); }
fn minus_infinity() -> f32 { return bitcast<f32>(low_bits); }
fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn max_or_nan(a: f32, b: f32) -> f32 {
  if (is_nan(a)) { return a; }
  if (is_nan(b)) { return b; }
  return max(a, b);
}
`;

/** Functions of one argument over `V`, with `U` and `B` the unsigned and boolean forms of it. */
export const FUNCTIONS = `
// Below zero and a number, by its bits: compilers turn a comparison into a maximum, which loses NaN.
fn is_negative(x: V) -> B { let bits = bitcast<U>(x); return (bits > U(0x80000000u)) & (bits <= U(0xff800000u)); }
fn sigmoid(x: V) -> V { return V(1) / (V(1) + exp(-x)); }
// Near 0 the quotient cancels: a Taylor series there.
fn tanh_exact(x: V) -> V {
  let e = exp(-2 * abs(x));
  let far = (V(1) - e) / (V(1) + e);
  let s = x * x;
  let near = x * (V(1) + s * (V(-0.33333334) + s * (V(0.13333334) + s * V(-0.05396825))));
  return select(select(far, -far, x < V(0)), near, abs(x) < V(0.2));
}
// Rational approximation on [-4, 4], as in Eigen: a few units in the last place.
fn erf(v: V) -> V {
  let x = clamp(v, V(-4), V(4));
  let s = x * x;
  var a = V(-2.72614225801306e-10);
  a = a * s + V(2.77068142495902e-08);
  a = a * s + V(-2.10102402082508e-06);
  a = a * s + V(-5.69250639462346e-05);
  a = a * s + V(-7.34990630326855e-04);
  a = a * s + V(-2.95459980854025e-03);
  a = a * s + V(-1.60960333262415e-02);
  var b = V(-1.45660718464996e-05);
  b = b * s + V(-2.13374055278905e-04);
  b = b * s + V(-1.68282697438203e-03);
  b = b * s + V(-7.37332916720468e-03);
  b = b * s + V(-1.42647390514189e-02);
  return x * a / b;
}
fn normal_cdf(x: V) -> V { return V(0.5) * (V(1) + erf(x * V(0.70710678))); }
// 0.5 (1 + tanh(u)) is sigmoid(2 u), which does not cancel for negative x.
fn gelu_gate(x: V) -> V { return sigmoid(V(1.5957691216) * (x + V(0.044715) * x * x * x)); }
`;

/** Each function of `x`. */
export const UNARY: Readonly<Record<UnaryOp, string>> = {
  neg: "-x",
  abs: "abs(x)",
  exp: "exp(x)",
  log: "log(x)",
  sqrt: "sqrt(x)",
  tanh: "tanh_exact(x)",
  sigmoid: "sigmoid(x)",
  relu: "select(x, V(0), is_negative(x))",
  gelu: "x * normal_cdf(x)",
  geluTanh: "x * gelu_gate(x)",
  silu: "x * sigmoid(x)",
};

/** Each derivative, of `x` and `y = op(x)`; those that use only one need not read the other. */
export const DERIVATIVE: Readonly<Record<UnaryOp, string>> = {
  neg: "V(-1)",
  abs: "sign(x)",
  exp: "y",
  log: "V(1) / x",
  sqrt: "V(0.5) / y",
  tanh: "V(1) - y * y",
  sigmoid: "y * (V(1) - y)",
  relu: "select(V(0), V(1), x > V(0))",
  gelu: "normal_cdf(x) + x * V(0.3989422804) * exp(V(-0.5) * x * x)",
  geluTanh: "gelu_slope(x)",
  silu: "silu_slope(x)",
};

/** Derivatives that need more than an expression. */
export const SLOPES = `
fn gelu_slope(x: V) -> V {
  let s = gelu_gate(x);
  return s * (V(1) + x * (V(1) - s) * V(1.5957691216) * (V(1) + V(0.134145) * x * x));
}
fn silu_slope(x: V) -> V {
  let s = sigmoid(x);
  return s * (V(1) + x * (V(1) - s));
}
`;

// Elementwise kernels over contiguous float32. `op` is a constant wherever `apply` and its kin are inlined, so each
// case below is a loop of its own.

import { apply, EXP, GELU_TANH, RELU, SIGMOID, SILU, slope, TANH } from "./functions";
import { addWide, fma, loadRest, storeRest, totalWide } from "./vector";

// Order fixed with the host: see BINARY in fast/elementwise.ts.
const ADD: i32 = 0, SUB: i32 = 1, MUL: i32 = 2, DIV: i32 = 3;

// @ts-ignore: decorator
@inline
function map(op: i32, x: usize, out: usize, n: i32): void {
  const whole = <usize>(n & ~3) << 2;
  for (let o: usize = 0; o < whole; o += 16) v128.store(out + o, apply(op, v128.load(x + o)));
  const rest = n & 3;
  if (rest) storeRest(out + whole, rest, apply(op, loadRest(x + whole, rest, f32x4.splat(0))));
}

export function unary(op: i32, x: usize, out: usize, n: i32): void {
  if (op == EXP) map(EXP, x, out, n);
  else if (op == TANH) map(TANH, x, out, n);
  else if (op == SIGMOID) map(SIGMOID, x, out, n);
  else if (op == SILU) map(SILU, x, out, n);
  else if (op == GELU_TANH) map(GELU_TANH, x, out, n);
  else map(RELU, x, out, n);
}

// @ts-ignore: decorator
@inline
function mapBackward(op: i32, x: usize, y: usize, gradient: usize, out: usize, n: i32): void {
  const whole = <usize>(n & ~3) << 2;
  for (let o: usize = 0; o < whole; o += 16) {
    v128.store(out + o, f32x4.mul(v128.load(gradient + o), slope(op, v128.load(x + o), v128.load(y + o))));
  }
  const rest = n & 3;
  if (rest) {
    const zero = f32x4.splat(0);
    const s = slope(op, loadRest(x + whole, rest, zero), loadRest(y + whole, rest, zero));
    storeRest(out + whole, rest, f32x4.mul(loadRest(gradient + whole, rest, zero), s));
  }
}

export function unaryBackward(op: i32, x: usize, y: usize, gradient: usize, out: usize, n: i32): void {
  if (op == EXP) mapBackward(EXP, x, y, gradient, out, n);
  else if (op == TANH) mapBackward(TANH, x, y, gradient, out, n);
  else if (op == SIGMOID) mapBackward(SIGMOID, x, y, gradient, out, n);
  else if (op == SILU) mapBackward(SILU, x, y, gradient, out, n);
  else if (op == GELU_TANH) mapBackward(GELU_TANH, x, y, gradient, out, n);
  else mapBackward(RELU, x, y, gradient, out, n);
}

// @ts-ignore: decorator
@inline
function combine(op: i32, a: v128, b: v128): v128 {
  if (op == ADD) return f32x4.add(a, b);
  if (op == SUB) return f32x4.sub(a, b);
  if (op == MUL) return f32x4.mul(a, b);
  return f32x4.div(a, b);
}

/** `stepA` and `stepB` are 1, or 0 for one number that meets every element of the other operand. */
// @ts-ignore: decorator
@inline
function zip(op: i32, a: usize, stepA: i32, b: usize, stepB: i32, out: usize, n: i32): void {
  const whole = <usize>(n & ~3) << 2;
  const rest = n & 3;
  const one = f32x4.splat(1);
  if (stepA && stepB) {
    for (let o: usize = 0; o < whole; o += 16) {
      v128.store(out + o, combine(op, v128.load(a + o), v128.load(b + o)));
    }
    if (rest) storeRest(out + whole, rest, combine(op, loadRest(a + whole, rest, one), loadRest(b + whole, rest, one)));
  } else if (stepA) {
    const y = v128.load32_splat(b);
    for (let o: usize = 0; o < whole; o += 16) v128.store(out + o, combine(op, v128.load(a + o), y));
    if (rest) storeRest(out + whole, rest, combine(op, loadRest(a + whole, rest, one), y));
  } else {
    const x = v128.load32_splat(a);
    for (let o: usize = 0; o < whole; o += 16) v128.store(out + o, combine(op, x, v128.load(b + o)));
    if (rest) storeRest(out + whole, rest, combine(op, x, loadRest(b + whole, rest, one)));
  }
}

export function binary(op: i32, a: usize, stepA: i32, b: usize, stepB: i32, out: usize, n: i32): void {
  if (op == ADD) zip(ADD, a, stepA, b, stepB, out, n);
  else if (op == SUB) zip(SUB, a, stepA, b, stepB, out, n);
  else if (op == MUL) zip(MUL, a, stepA, b, stepB, out, n);
  else zip(DIV, a, stepA, b, stepB, out, n);
}

export function affine(x: usize, out: usize, n: i32, scale: f32, shift: f32): void {
  const s = f32x4.splat(scale), t = f32x4.splat(shift);
  const whole = <usize>(n & ~3) << 2;
  for (let o: usize = 0; o < whole; o += 16) v128.store(out + o, fma(v128.load(x + o), s, t));
  const rest = n & 3;
  if (rest) storeRest(out + whole, rest, fma(loadRest(x + whole, rest, t), s, t));
}

/** Sum of squares, in float64. */
export function sumSquares(x: usize, n: i32): f64 {
  let sums = f64x2.splat(0);
  const whole = <usize>(n & ~3) << 2;
  for (let o: usize = 0; o < whole; o += 16) {
    const v = v128.load(x + o);
    const low = f64x2.promote_low_f32x4(v);
    const high = f64x2.promote_low_f32x4(i8x16.shuffle(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
    sums = f64x2.add(sums, f64x2.add(f64x2.mul(low, low), f64x2.mul(high, high)));
  }
  let total = totalWide(sums);
  for (let i = n & ~3; i < n; i++) {
    const v = <f64>load<f32>(x + (<usize>i << 2));
    total += v * v;
  }
  return total;
}

/** Sums of the columns of `rows` x `columns`, or of its rows when `columns` is 1; float64 inside. */
export function sumColumns(x: usize, out: usize, rows: i32, columns: i32, accumulate: bool): void {
  if (columns == 1) {
    let sums = f64x2.splat(0);
    const whole = <usize>(rows & ~3) << 2;
    for (let o: usize = 0; o < whole; o += 16) sums = addWide(sums, v128.load(x + o));
    let total = totalWide(sums);
    for (let i = rows & ~3; i < rows; i++) total += <f64>load<f32>(x + (<usize>i << 2));
    store<f32>(out, <f32>(accumulate ? <f64>load<f32>(out) + total : total));
    return;
  }
  const stride = <usize>columns << 2;
  let j = 0;
  for (; j + 16 <= columns; j += 16) {
    let s0 = f64x2.splat(0), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
    let from = x + (<usize>j << 2);
    for (let i = 0; i < rows; i++, from += stride) {
      s0 = f64x2.add(s0, f64x2.promote_low_f32x4(v128.load64_zero(from)));
      s1 = f64x2.add(s1, f64x2.promote_low_f32x4(v128.load64_zero(from, 8)));
      s2 = f64x2.add(s2, f64x2.promote_low_f32x4(v128.load64_zero(from, 16)));
      s3 = f64x2.add(s3, f64x2.promote_low_f32x4(v128.load64_zero(from, 24)));
      s4 = f64x2.add(s4, f64x2.promote_low_f32x4(v128.load64_zero(from, 32)));
      s5 = f64x2.add(s5, f64x2.promote_low_f32x4(v128.load64_zero(from, 40)));
      s6 = f64x2.add(s6, f64x2.promote_low_f32x4(v128.load64_zero(from, 48)));
      s7 = f64x2.add(s7, f64x2.promote_low_f32x4(v128.load64_zero(from, 56)));
    }
    const to = out + (<usize>j << 2);
    storePair(to, s0, accumulate);
    storePair(to + 8, s1, accumulate);
    storePair(to + 16, s2, accumulate);
    storePair(to + 24, s3, accumulate);
    storePair(to + 32, s4, accumulate);
    storePair(to + 40, s5, accumulate);
    storePair(to + 48, s6, accumulate);
    storePair(to + 56, s7, accumulate);
  }
  for (; j < columns; j++) {
    let total: f64 = 0;
    let from = x + (<usize>j << 2);
    for (let i = 0; i < rows; i++, from += stride) total += <f64>load<f32>(from);
    const to = out + (<usize>j << 2);
    store<f32>(to, <f32>(accumulate ? <f64>load<f32>(to) + total : total));
  }
}

// @ts-ignore: decorator
@inline
function storePair(to: usize, sums: v128, accumulate: bool): void {
  if (accumulate) sums = f64x2.add(sums, f64x2.promote_low_f32x4(v128.load64_zero(to)));
  v128.store_lane<u64>(to, f32x4.demote_f64x2_zero(sums), 0);
}

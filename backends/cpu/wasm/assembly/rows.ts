// Softmax and cross entropy over rows of float32.

import { addWide, exp4, largest, loadRest, storeRest, totalWide } from "./vector";

// @ts-ignore: decorator
@inline
const MINUS_INFINITY: f32 = -Infinity;

/** Largest of `n` elements; a NaN may be passed over, as it shows in every sum of exponentials. */
export function rowMax(x: usize, n: i32): f32 {
  const whole = <usize>(n & ~3) << 2;
  let m = f32x4.splat(MINUS_INFINITY);
  for (let o: usize = 0; o < whole; o += 16) m = f32x4.pmax(m, v128.load(x + o));
  const rest = n & 3;
  if (rest) m = f32x4.pmax(m, loadRest(x + whole, rest, f32x4.splat(MINUS_INFINITY)));
  return largest(m);
}

/** Sum of e^(x - shift), in float64. */
export function sumExp(x: usize, n: i32, shift: f32): f64 {
  const whole = <usize>(n & ~3) << 2;
  const s = f32x4.splat(shift);
  let sums = f64x2.splat(0);
  for (let o: usize = 0; o < whole; o += 16) sums = addWide(sums, exp4(f32x4.sub(v128.load(x + o), s)));
  const rest = n & 3;
  if (rest) sums = addWide(sums, exp4(f32x4.sub(loadRest(x + whole, rest, f32x4.splat(MINUS_INFINITY)), s)));
  return totalWide(sums);
}

/** Writes e^(x - shift) and gives their sum. */
export function storeExp(x: usize, out: usize, n: i32, shift: f32): f64 {
  const whole = <usize>(n & ~3) << 2;
  const s = f32x4.splat(shift);
  let sums = f64x2.splat(0);
  for (let o: usize = 0; o < whole; o += 16) {
    const y = exp4(f32x4.sub(v128.load(x + o), s));
    v128.store(out + o, y);
    sums = addWide(sums, y);
  }
  const rest = n & 3;
  if (rest) {
    const y = exp4(f32x4.sub(loadRest(x + whole, rest, f32x4.splat(MINUS_INFINITY)), s));
    storeRest(out + whole, rest, y);
    sums = addWide(sums, y);
  }
  return totalWide(sums);
}

/** out = x * scale. */
export function scaleRow(x: usize, out: usize, n: i32, scale: f32): void {
  const whole = <usize>(n & ~3) << 2;
  const s = f32x4.splat(scale);
  for (let o: usize = 0; o < whole; o += 16) v128.store(out + o, f32x4.mul(v128.load(x + o), s));
  for (let i = n & ~3; i < n; i++) store<f32>(out + (<usize>i << 2), load<f32>(x + (<usize>i << 2)) * scale);
}

export function softmax(x: usize, out: usize, rows: i32, columns: i32, log: bool): void {
  const stride = <usize>columns << 2;
  for (let row = 0; row < rows; row++, x += stride, out += stride) {
    const m = rowMax(x, columns);
    if (log) {
      const logSum = <f32>Math.log(sumExp(x, columns, m));
      const shift = f32x4.splat(m), total = f32x4.splat(logSum);
      const whole = <usize>(columns & ~3) << 2;
      for (let o: usize = 0; o < whole; o += 16) {
        v128.store(out + o, f32x4.sub(f32x4.sub(v128.load(x + o), shift), total));
      }
      for (let o = whole; o < stride; o += 4) store<f32>(out + o, load<f32>(x + o) - m - logSum);
    } else {
      const sum = storeExp(x, out, columns, m);
      scaleRow(out, out, columns, <f32>(1 / sum));
    }
  }
}

export function softmaxBackward(y: usize, gradient: usize, out: usize, rows: i32, columns: i32, log: bool): void {
  const stride = <usize>columns << 2;
  const whole = <usize>(columns & ~3) << 2;
  const rest = columns & 3;
  const zero = f32x4.splat(0);
  for (let row = 0; row < rows; row++, y += stride, gradient += stride, out += stride) {
    let sums = f64x2.splat(0);
    for (let o: usize = 0; o < whole; o += 16) {
      const g = v128.load(gradient + o);
      sums = addWide(sums, log ? g : f32x4.mul(g, v128.load(y + o)));
    }
    if (rest) {
      const g = loadRest(gradient + whole, rest, zero);
      sums = addWide(sums, log ? g : f32x4.mul(g, loadRest(y + whole, rest, zero)));
    }
    const s = f32x4.splat(<f32>totalWide(sums));
    for (let o: usize = 0; o < whole; o += 16) {
      v128.store(out + o, softmaxSlope(v128.load(y + o), v128.load(gradient + o), s, log));
    }
    if (rest) {
      const p = loadRest(y + whole, rest, zero), g = loadRest(gradient + whole, rest, zero);
      storeRest(out + whole, rest, softmaxSlope(p, g, s, log));
    }
  }
}

// @ts-ignore: decorator
@inline
function softmaxSlope(y: v128, g: v128, sum: v128, log: bool): v128 {
  return log ? f32x4.sub(g, f32x4.mul(exp4(y), sum)) : f32x4.mul(y, f32x4.sub(g, sum));
}

/** Targets are int32 and were checked by the host: columns, or -100 for rows that do not count. */
export function crossEntropy(x: usize, targets: usize, losses: usize, lse: usize, rows: i32, columns: i32): void {
  const stride = <usize>columns << 2;
  for (let row = 0; row < rows; row++, x += stride) {
    const at = <usize>row << 2;
    const m = rowMax(x, columns);
    const total = <f64>m + Math.log(sumExp(x, columns, m));
    const target = load<i32>(targets + at);
    store<f32>(lse + at, <f32>total);
    store<f32>(losses + at, target < 0 ? 0 : <f32>(total - <f64>load<f32>(x + (<usize>target << 2))));
  }
}

export function crossEntropyBackward(
  x: usize, targets: usize, lse: usize, gradient: usize, out: usize, rows: i32, columns: i32,
): void {
  const stride = <usize>columns << 2;
  const whole = <usize>(columns & ~3) << 2;
  const rest = columns & 3;
  for (let row = 0; row < rows; row++, x += stride, out += stride) {
    const at = <usize>row << 2;
    const target = load<i32>(targets + at);
    if (target < 0) {
      memory.fill(out, 0, stride);
      continue;
    }
    const scale = load<f32>(gradient + at);
    const s = f32x4.splat(load<f32>(lse + at)), g = f32x4.splat(scale);
    for (let o: usize = 0; o < whole; o += 16) {
      v128.store(out + o, f32x4.mul(exp4(f32x4.sub(v128.load(x + o), s)), g));
    }
    if (rest) storeRest(out + whole, rest, f32x4.mul(exp4(f32x4.sub(loadRest(x + whole, rest, s), s)), g));
    const hit = out + (<usize>target << 2);
    store<f32>(hit, load<f32>(hit) - scale);
  }
}

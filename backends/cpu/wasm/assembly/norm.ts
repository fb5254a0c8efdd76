// Layer normalisation over rows of float32; sums in float64.

import { addTo, addWide, fma, loadRest, storeRest, totalWide } from "./vector";

/** `bias` is 0 when there is none. */
export function layerNorm(
  x: usize, weight: usize, bias: usize, out: usize, mean: usize, rstd: usize, rows: i32, columns: i32, eps: f64,
): void {
  const stride = <usize>columns << 2;
  const whole = <usize>(columns & ~3) << 2;
  const rest = columns & 3;
  const zero = f32x4.splat(0);
  for (let row = 0; row < rows; row++, x += stride, out += stride) {
    let sums = f64x2.splat(0);
    for (let o: usize = 0; o < whole; o += 16) sums = addWide(sums, v128.load(x + o));
    if (rest) sums = addWide(sums, loadRest(x + whole, rest, zero));
    const average = <f32>(totalWide(sums) / <f64>columns);
    const m = f32x4.splat(average);
    let squares = f64x2.splat(0);
    for (let o: usize = 0; o < whole; o += 16) {
      const d = f32x4.sub(v128.load(x + o), m);
      squares = addWide(squares, f32x4.mul(d, d));
    }
    if (rest) {
      const d = f32x4.sub(loadRest(x + whole, rest, m), m);
      squares = addWide(squares, f32x4.mul(d, d));
    }
    const scale = <f32>(1 / sqrt(totalWide(squares) / <f64>columns + eps));
    store<f32>(mean + (<usize>row << 2), average);
    store<f32>(rstd + (<usize>row << 2), scale);
    const r = f32x4.splat(scale);
    for (let o: usize = 0; o < whole; o += 16) {
      const n = f32x4.mul(f32x4.sub(v128.load(x + o), m), r);
      v128.store(out + o, fma(n, v128.load(weight + o), bias ? v128.load(bias + o) : zero));
    }
    if (rest) {
      const n = f32x4.mul(f32x4.sub(loadRest(x + whole, rest, m), m), r);
      const b = bias ? loadRest(bias + whole, rest, zero) : zero;
      storeRest(out + whole, rest, fma(n, loadRest(weight + whole, rest, zero), b));
    }
  }
}

/** One row's part of the gradients of weight and bias, four columns from byte `o` on. */
// @ts-ignore: decorator
@inline
function addParts(dWeight: usize, dBias: usize, o: usize, g: v128, n: v128): void {
  addTo(dWeight + 2 * o, f32x4.mul(g, n));
  addTo(dBias + 2 * o, g);
}

/**
 * `dx` is 0 when it is not wanted. `dWeight` and `dBias` are float64 sums of `columns` rounded up to four, which the
 * host has cleared and reads.
 */
export function layerNormBackward(
  x: usize, weight: usize, mean: usize, rstd: usize, gradient: usize, dx: usize,
  dWeight: usize, dBias: usize, rows: i32, columns: i32,
): void {
  const stride = <usize>columns << 2;
  const whole = <usize>(columns & ~3) << 2;
  const rest = columns & 3;
  const zero = f32x4.splat(0);
  for (let row = 0; row < rows; row++, x += stride, gradient += stride) {
    const m = f32x4.splat(load<f32>(mean + (<usize>row << 2)));
    const scale = load<f32>(rstd + (<usize>row << 2));
    const r = f32x4.splat(scale);
    let sums = f64x2.splat(0), dots = f64x2.splat(0);
    for (let o: usize = 0; o < whole; o += 16) {
      const g = v128.load(gradient + o);
      const n = f32x4.mul(f32x4.sub(v128.load(x + o), m), r);
      addParts(dWeight, dBias, o, g, n);
      const gw = f32x4.mul(g, v128.load(weight + o));
      sums = addWide(sums, gw);
      dots = addWide(dots, f32x4.mul(gw, n));
    }
    if (rest) {
      const g = loadRest(gradient + whole, rest, zero);
      const n = f32x4.mul(f32x4.sub(loadRest(x + whole, rest, m), m), r);
      addParts(dWeight, dBias, whole, g, n);
      const gw = f32x4.mul(g, loadRest(weight + whole, rest, zero));
      sums = addWide(sums, gw);
      dots = addWide(dots, f32x4.mul(gw, n));
    }
    if (!dx) continue;
    const a = f32x4.splat(<f32>(totalWide(sums) / <f64>columns));
    const b = f32x4.splat(<f32>(totalWide(dots) / <f64>columns));
    for (let o: usize = 0; o < whole; o += 16) {
      const n = f32x4.mul(f32x4.sub(v128.load(x + o), m), r);
      const gw = f32x4.mul(v128.load(gradient + o), v128.load(weight + o));
      v128.store(dx + o, f32x4.mul(r, f32x4.sub(gw, fma(n, b, a))));
    }
    if (rest) {
      const n = f32x4.mul(f32x4.sub(loadRest(x + whole, rest, m), m), r);
      const gw = f32x4.mul(loadRest(gradient + whole, rest, zero), loadRest(weight + whole, rest, zero));
      storeRest(dx + whole, rest, f32x4.mul(r, f32x4.sub(gw, fma(n, b, a))));
    }
    dx += stride;
  }
}

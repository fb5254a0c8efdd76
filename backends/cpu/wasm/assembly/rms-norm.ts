// Root-mean-square normalisation over rows of float32; sums in float64.

import { addTo, addWide, loadRest, storeRest, totalWide } from "./vector";

export function rmsNorm(
  x: usize, weight: usize, out: usize, rstd: usize, rows: i32, columns: i32, eps: f64,
): void {
  const stride = <usize>columns << 2;
  const whole = <usize>(columns & ~3) << 2;
  const rest = columns & 3;
  const zero = f32x4.splat(0);
  for (let row = 0; row < rows; row++, x += stride, out += stride) {
    let squares = f64x2.splat(0);
    for (let o: usize = 0; o < whole; o += 16) {
      const v = v128.load(x + o);
      squares = addWide(squares, f32x4.mul(v, v));
    }
    if (rest) {
      const v = loadRest(x + whole, rest, zero);
      squares = addWide(squares, f32x4.mul(v, v));
    }
    const scale = <f32>(1 / sqrt(totalWide(squares) / <f64>columns + eps));
    store<f32>(rstd + (<usize>row << 2), scale);
    const r = f32x4.splat(scale);
    for (let o: usize = 0; o < whole; o += 16) {
      v128.store(out + o, f32x4.mul(f32x4.mul(v128.load(x + o), r), v128.load(weight + o)));
    }
    if (rest) {
      const n = f32x4.mul(loadRest(x + whole, rest, zero), r);
      storeRest(out + whole, rest, f32x4.mul(n, loadRest(weight + whole, rest, zero)));
    }
  }
}

/**
 * `dx` is 0 when it is not wanted, and may be `gradient`. `dWeight` is float64 sums of `columns` rounded up to four, which
 * the host has cleared and reads.
 */
export function rmsNormBackward(
  x: usize, weight: usize, rstd: usize, gradient: usize, dx: usize, dWeight: usize, rows: i32, columns: i32,
): void {
  const stride = <usize>columns << 2;
  const whole = <usize>(columns & ~3) << 2;
  const rest = columns & 3;
  const zero = f32x4.splat(0);
  for (let row = 0; row < rows; row++, x += stride, gradient += stride) {
    const scale = load<f32>(rstd + (<usize>row << 2));
    const r = f32x4.splat(scale);
    let dots = f64x2.splat(0);
    for (let o: usize = 0; o < whole; o += 16) {
      const gn = f32x4.mul(v128.load(gradient + o), f32x4.mul(v128.load(x + o), r));
      addTo(dWeight + 2 * o, gn);
      dots = addWide(dots, f32x4.mul(gn, v128.load(weight + o)));
    }
    if (rest) {
      const gn = f32x4.mul(loadRest(gradient + whole, rest, zero), f32x4.mul(loadRest(x + whole, rest, zero), r));
      addTo(dWeight + 2 * whole, gn);
      dots = addWide(dots, f32x4.mul(gn, loadRest(weight + whole, rest, zero)));
    }
    if (!dx) continue;
    const p = f32x4.splat(<f32>(totalWide(dots) / <f64>columns) * scale);
    for (let o: usize = 0; o < whole; o += 16) {
      const gw = f32x4.mul(v128.load(gradient + o), v128.load(weight + o));
      v128.store(dx + o, f32x4.mul(r, f32x4.sub(gw, f32x4.mul(v128.load(x + o), p))));
    }
    if (rest) {
      const gw = f32x4.mul(loadRest(gradient + whole, rest, zero), loadRest(weight + whole, rest, zero));
      storeRest(dx + whole, rest, f32x4.mul(r, f32x4.sub(gw, f32x4.mul(loadRest(x + whole, rest, zero), p))));
    }
    dx += stride;
  }
}

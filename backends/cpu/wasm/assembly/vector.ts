// Vectors of four float32: loads and stores of a rest of one to three, sums in float64, and elementary functions.

/** Multiply-add: one rounding where the variant and the machine have it, two otherwise. */
// @ts-ignore: decorator
@inline
export function fma(a: v128, b: v128, c: v128): v128 {
  return ASC_FEATURE_RELAXED_SIMD ? f32x4.relaxed_madd(a, b, c) : f32x4.add(f32x4.mul(a, b), c);
}

/** The first `count` (1 to 3) elements at `p`, and `fill` in the other lanes. */
export function loadRest(p: usize, count: i32, fill: v128): v128 {
  let x = v128.load_lane<f32>(p, fill, 0);
  if (count > 1) x = v128.load_lane<f32>(p, x, 1, 4);
  if (count > 2) x = v128.load_lane<f32>(p, x, 2, 8);
  return x;
}

/** Stores the first `count` (1 to 3) lanes. */
export function storeRest(p: usize, count: i32, x: v128): void {
  v128.store_lane<f32>(p, x, 0);
  if (count > 1) v128.store_lane<f32>(p, x, 1, 4);
  if (count > 2) v128.store_lane<f32>(p, x, 2, 8);
}

/** Adds four float32 to two float64 sums. */
// @ts-ignore: decorator
@inline
export function addWide(sums: v128, x: v128): v128 {
  const high = i8x16.shuffle(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
  return f64x2.add(f64x2.add(sums, f64x2.promote_low_f32x4(x)), f64x2.promote_low_f32x4(high));
}

/** Adds four float32 to the four float64 sums at `sums`. */
// @ts-ignore: decorator
@inline
export function addTo(sums: usize, x: v128): void {
  const high = i8x16.shuffle(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
  v128.store(sums, f64x2.add(v128.load(sums), f64x2.promote_low_f32x4(x)));
  v128.store(sums, f64x2.add(v128.load(sums, 16), f64x2.promote_low_f32x4(high)), 16);
}

// @ts-ignore: decorator
@inline
export function totalWide(sums: v128): f64 {
  return f64x2.extract_lane(sums, 0) + f64x2.extract_lane(sums, 1);
}

// @ts-ignore: decorator
@inline
export function largest(x: v128): f32 {
  return max(
    max(f32x4.extract_lane(x, 0), f32x4.extract_lane(x, 1)),
    max(f32x4.extract_lane(x, 2), f32x4.extract_lane(x, 3)),
  );
}

/** 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits. */
const ROUNDER: f32 = 12582912;

/**
 * e^x after Cephes' expf. Scaled by 2^n in two steps, so that results below the normal range come out right. `pmin` and
 * `pmax` are one instruction each and keep a NaN in their first argument.
 */
// @ts-ignore: decorator
@inline
export function exp4(x: v128): v128 {
  x = f32x4.pmin(f32x4.pmax(x, f32x4.splat(-104)), f32x4.splat(89));
  const shifted = fma(x, f32x4.splat(1.44269504088896341), f32x4.splat(ROUNDER));
  const n = f32x4.sub(shifted, f32x4.splat(ROUNDER));
  let r = fma(n, f32x4.splat(-0.693359375), x);
  r = fma(n, f32x4.splat(2.12194440e-4), r);
  let y = fma(f32x4.splat(1.9875691500e-4), r, f32x4.splat(1.3981999507e-3));
  y = fma(y, r, f32x4.splat(8.3334519073e-3));
  y = fma(y, r, f32x4.splat(4.1665795894e-2));
  y = fma(y, r, f32x4.splat(1.6666665459e-1));
  y = fma(y, r, f32x4.splat(5.0000001201e-1));
  y = f32x4.add(fma(y, f32x4.mul(r, r), r), f32x4.splat(1));
  const power = i32x4.sub(shifted, f32x4.splat(ROUNDER));
  const half = i32x4.shr_s(power, 1);
  const one = i32x4.splat(127);
  y = f32x4.mul(y, i32x4.shl(i32x4.add(half, one), 23));
  return f32x4.mul(y, i32x4.shl(i32x4.add(i32x4.sub(power, half), one), 23));
}

/** tanh after Cephes' tanhf: a polynomial near 0, by e^2x elsewhere. */
// @ts-ignore: decorator
@inline
export function tanh4(x: v128): v128 {
  const a = f32x4.abs(x);
  const z = f32x4.mul(x, x);
  let y = fma(f32x4.splat(-5.70498872745e-3), z, f32x4.splat(2.06390887954e-2));
  y = fma(y, z, f32x4.splat(-5.37397155531e-2));
  y = fma(y, z, f32x4.splat(1.33314422036e-1));
  y = fma(y, z, f32x4.splat(-3.33332819422e-1));
  const near = fma(f32x4.mul(y, z), x, x);
  const one = f32x4.splat(1);
  const far = f32x4.sub(one, f32x4.div(f32x4.splat(2), f32x4.add(exp4(f32x4.add(a, a)), one)));
  const signed = v128.or(far, v128.and(x, i32x4.splat(i32.MIN_VALUE)));
  return v128.bitselect(near, signed, f32x4.lt(a, f32x4.splat(0.625)));
}

// @ts-ignore: decorator
@inline
export function sigmoid4(x: v128): v128 {
  const one = f32x4.splat(1);
  return f32x4.div(one, f32x4.add(one, exp4(f32x4.neg(x))));
}

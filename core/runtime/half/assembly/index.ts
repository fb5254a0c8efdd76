// 16-bit floats in one memory, to float32 and back, and sums of float32. `dtype` is a constant wherever the functions
// below are inlined, so each case is a loop of its own. See ../plain.ts, the plain twin.

// Order fixed with the host: see ../module.ts.
const FLOAT16: i32 = 0;
const SUM: i32 = 0;

/** Whether all of eight 16-bit words need no more than another exponent; zero, subnormals and what is not finite do. */
// @ts-ignore: decorator
@inline
function isEasy(dtype: i32, x: v128): bool {
  if (dtype != FLOAT16) return true;
  const exponent = i16x8.sub(v128.and(x, i16x8.splat(0x7c00)), i16x8.splat(0x0400));
  return !v128.any_true(i16x8.ge_u(exponent, i16x8.splat(0x7800)));
}

/** Float32 from the first four of eight 16-bit words. */
// @ts-ignore: decorator
@inline
function widenLow(dtype: i32, easy: bool, x: v128): v128 {
  if (dtype == FLOAT16) return easy ? rebase(i32x4.extend_low_i16x8_s(x)) : fromFloat16(i32x4.extend_low_i16x8_u(x));
  return i8x16.shuffle(i32x4.splat(0), x, 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23);
}

// @ts-ignore: decorator
@inline
function widenHigh(dtype: i32, easy: bool, x: v128): v128 {
  if (dtype == FLOAT16) return easy ? rebase(i32x4.extend_high_i16x8_s(x)) : fromFloat16(i32x4.extend_high_i16x8_u(x));
  return i8x16.shuffle(i32x4.splat(0), x, 8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31);
}

/** Of words extended with their sign: the sign comes to its place by itself. */
// @ts-ignore: decorator
@inline
function rebase(h: v128): v128 {
  return i32x4.add(v128.and(i32x4.shl(h, 13), i32x4.splat(0x8fffe000)), i32x4.splat(112 << 23));
}

/** Below 2^-14 the bits count steps of 2^-24: put behind 2^-14's, which is then taken off again, without subnormals. */
// @ts-ignore: decorator
@inline
function fromFloat16(h: v128): v128 {
  const bits = i32x4.shl(v128.and(h, i32x4.splat(0x7fff)), 13);
  const bias = i32x4.splat(112 << 23);
  let normal = i32x4.add(bits, bias);
  // Infinity and NaN: the exponent goes all the way up.
  normal = i32x4.add(normal, v128.and(bias, i32x4.gt_s(bits, i32x4.splat(0x0f7fffff))));
  const small = f32x4.sub(i32x4.add(bits, i32x4.splat(113 << 23)), f32x4.splat(0.00006103515625));
  const value = v128.bitselect(small, normal, i32x4.lt_s(bits, i32x4.splat(1 << 23)));
  return v128.or(value, i32x4.shl(v128.and(h, i32x4.splat(0x8000)), 16));
}

/** Eight 16-bit words, to nearest even; a NaN stays one. */
// @ts-ignore: decorator
@inline
function narrow(dtype: i32, low: v128, high: v128): v128 {
  if (dtype != FLOAT16) {
    if (v128.any_true(v128.or(f32x4.ne(low, low), f32x4.ne(high, high)))) {
      low = withoutPayload(low);
      high = withoutPayload(high);
    }
    return i16x8.narrow_i32x4_u(toBfloat16(low), toBfloat16(high));
  }
  if (v128.any_true(v128.or(isHard(low), isHard(high)))) {
    return i16x8.narrow_i32x4_u(toFloat16(low), toFloat16(high));
  }
  const halves = i16x8.narrow_i32x4_u(roundNormal(low), roundNormal(high));
  // The words' upper halves have the signs.
  const upper = i8x16.shuffle(low, high, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31);
  return v128.or(halves, v128.and(upper, i16x8.splat(<i16>0x8000)));
}

/** Where a float32 is no normal float16: marks zero, and what becomes subnormal, infinite or not a number. */
// @ts-ignore: decorator
@inline
function isHard(x: v128): v128 {
  const bits = v128.and(x, i32x4.splat(0x7fffffff));
  return i32x4.ge_u(i32x4.sub(bits, i32x4.splat(113 << 23)), i32x4.splat(0x0f000000));
}

/** Without sign. Rounding up the largest gives infinity. */
// @ts-ignore: decorator
@inline
function roundNormal(x: v128): v128 {
  const bits = v128.and(x, i32x4.splat(0x7fffffff));
  const odd = v128.and(i32x4.shr_u(bits, 13), i32x4.splat(1));
  return i32x4.shr_u(i32x4.add(i32x4.add(bits, i32x4.splat(0xfff - (112 << 23))), odd), 13);
}

// @ts-ignore: decorator
@inline
function toBfloat16(x: v128): v128 {
  const odd = v128.and(i32x4.shr_u(x, 16), i32x4.splat(1));
  return i32x4.shr_u(i32x4.add(i32x4.add(x, i32x4.splat(0x7fff)), odd), 16);
}

/** Rounding up the bits of a NaN could end anywhere: each becomes the plainest of its sign. */
// @ts-ignore: decorator
@inline
function withoutPayload(x: v128): v128 {
  const plainest = v128.or(v128.and(x, i32x4.splat(i32.MIN_VALUE)), i32x4.splat(0x7fc00000));
  return v128.bitselect(plainest, x, f32x4.ne(x, x));
}

// @ts-ignore: decorator
@inline
function toFloat16(x: v128): v128 {
  const sign = v128.and(i32x4.shr_u(x, 16), i32x4.splat(0x8000));
  const bits = v128.and(x, i32x4.splat(0x7fffffff));
  // Beside 0.5, float32 has steps of 2^-24, which are float16's below 2^-14: the addition rounds.
  const half = f32x4.splat(0.5);
  const small = i32x4.sub(f32x4.add(bits, half), half);
  let value = v128.bitselect(small, roundNormal(x), i32x4.lt_s(bits, i32x4.splat(113 << 23)));
  value = v128.bitselect(i32x4.splat(0x7c00), value, i32x4.gt_s(bits, i32x4.splat(0x477fffff)));
  value = v128.bitselect(i32x4.splat(0x7e00), value, f32x4.ne(x, x));
  return v128.or(value, sign);
}

// @ts-ignore: decorator
@inline
function widenAll(dtype: i32, from: usize, fromStride: i32, to: usize, toStride: i32, rows: i32, columns: i32): void {
  const whole = columns & ~7;
  for (let row = 0; row < rows; row++, from += <usize>fromStride << 1, to += <usize>toStride << 2) {
    for (let i = 0; i < whole; i += 8) {
      const x = v128.load(from + (<usize>i << 1));
      const p = to + (<usize>i << 2);
      if (isEasy(dtype, x)) {
        v128.store(p, widenLow(dtype, true, x));
        v128.store(p, widenHigh(dtype, true, x), 16);
      } else {
        v128.store(p, widenLow(dtype, false, x));
        v128.store(p, widenHigh(dtype, false, x), 16);
      }
    }
    for (let i = whole; i < columns; i++) {
      const x = widenLow(dtype, false, v128.load16_splat(from + (<usize>i << 1)));
      v128.store_lane<f32>(to + (<usize>i << 2), x, 0);
    }
  }
}

// @ts-ignore: decorator
@inline
function narrowAll(dtype: i32, from: usize, fromStride: i32, to: usize, toStride: i32, rows: i32, columns: i32): void {
  const whole = columns & ~7;
  for (let row = 0; row < rows; row++, from += <usize>fromStride << 2, to += <usize>toStride << 1) {
    for (let i = 0; i < whole; i += 8) {
      const p = from + (<usize>i << 2);
      v128.store(to + (<usize>i << 1), narrow(dtype, v128.load(p), v128.load(p, 16)));
    }
    for (let i = whole; i < columns; i++) {
      const x = v128.load32_splat(from + (<usize>i << 2));
      v128.store_lane<u16>(to + (<usize>i << 1), narrow(dtype, x, x), 0);
    }
  }
}

/** `rows` x `columns` 16-bit floats to float32; strides between rows count elements. */
export function widenRows(
  dtype: i32, from: usize, fromStride: i32, to: usize, toStride: i32, rows: i32, columns: i32,
): void {
  if (dtype == FLOAT16) widenAll(FLOAT16, from, fromStride, to, toStride, rows, columns);
  else widenAll(1, from, fromStride, to, toStride, rows, columns);
}

/** Float32 to `rows` x `columns` 16-bit floats. */
export function narrowRows(
  dtype: i32, from: usize, fromStride: i32, to: usize, toStride: i32, rows: i32, columns: i32,
): void {
  if (dtype == FLOAT16) narrowAll(FLOAT16, from, fromStride, to, toStride, rows, columns);
  else narrowAll(1, from, fromStride, to, toStride, rows, columns);
}

/** `total = total + term`, or their maximum, over n float32. */
export function combine(op: i32, total: usize, term: usize, n: i32): void {
  const whole = <usize>(n & ~3) << 2, end = <usize>n << 2;
  if (op == SUM) {
    for (let o: usize = 0; o < whole; o += 16) v128.store(total + o, f32x4.add(v128.load(total + o), v128.load(term + o)));
    for (let o = whole; o < end; o += 4) store<f32>(total + o, load<f32>(total + o) + load<f32>(term + o));
  } else {
    for (let o: usize = 0; o < whole; o += 16) v128.store(total + o, f32x4.max(v128.load(total + o), v128.load(term + o)));
    for (let o = whole; o < end; o += 4) store<f32>(total + o, max(load<f32>(total + o), load<f32>(term + o)));
  }
}

/** `total = total / divisor` over n float32. */
export function divide(total: usize, n: i32, divisor: f32): void {
  const whole = <usize>(n & ~3) << 2, end = <usize>n << 2;
  if (!(reinterpret<u32>(divisor) & 0x007fffff)) {
    // A power of two: to multiply by its reciprocal gives the same bits, several times as fast.
    const reciprocal: f32 = 1 / divisor;
    const r = f32x4.splat(reciprocal);
    for (let o: usize = 0; o < whole; o += 16) v128.store(total + o, f32x4.mul(v128.load(total + o), r));
    for (let o = whole; o < end; o += 4) store<f32>(total + o, load<f32>(total + o) * reciprocal);
    return;
  }
  const d = f32x4.splat(divisor);
  for (let o: usize = 0; o < whole; o += 16) v128.store(total + o, f32x4.div(v128.load(total + o), d));
  for (let o = whole; o < end; o += 4) store<f32>(total + o, load<f32>(total + o) / divisor);
}

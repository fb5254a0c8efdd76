// Dropout on Philox4x32-10: see core/tensor/random.ts, the plain twin. Four blocks of the stream are made at a time,
// each vector holding one word of four blocks.

import { loadRest, storeRest } from "./vector";

// @ts-ignore: decorator
@inline
function interleaveLow(a: v128, b: v128): v128 {
  return i8x16.shuffle(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
}

// @ts-ignore: decorator
@inline
function interleaveHigh(a: v128, b: v128): v128 {
  return i8x16.shuffle(a, b, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
}

/** Upper halves of the products of two pairs each. */
// @ts-ignore: decorator
@inline
function upperWords(low: v128, high: v128): v128 {
  return i8x16.shuffle(low, high, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}

// @ts-ignore: decorator
@inline
function keep(x: v128, words: v128, threshold: v128, scale: v128): v128 {
  return v128.and(f32x4.mul(x, scale), i32x4.ge_u(words, threshold));
}

/** `out = word >= threshold ? x * scale : 0` over n elements, from a block of four of the stream on; n is below 2^32. */
export function dropout(
  x: usize, out: usize, n: i32, block: i32, threshold: i32, scale: f32, keyLow: i32, keyHigh: i32,
): void {
  const m0 = i32x4.splat(0xd2511f53), m1 = i32x4.splat(0xcd9e8d57);
  const limit = i32x4.splat(threshold), s = f32x4.splat(scale);
  let left = n;
  for (let counter = block; left > 0; counter += 4) {
    let x0 = i32x4.add(i32x4.splat(counter), i32x4(0, 1, 2, 3));
    let x1 = i32x4.splat(0), x2 = x1, x3 = x1;
    let k0 = keyLow, k1 = keyHigh;
    for (let round = 0; round < 10; round++) {
      const low0 = i64x2.extmul_low_i32x4_u(m0, x0), high0 = i64x2.extmul_high_i32x4_u(m0, x0);
      const low1 = i64x2.extmul_low_i32x4_u(m1, x2), high1 = i64x2.extmul_high_i32x4_u(m1, x2);
      const y0 = v128.xor(v128.xor(upperWords(low1, high1), x1), i32x4.splat(k0));
      const y2 = v128.xor(v128.xor(upperWords(low0, high0), x3), i32x4.splat(k1));
      x1 = i32x4.mul(m1, x2);
      x3 = i32x4.mul(m0, x0);
      x0 = y0;
      x2 = y2;
      k0 += 0x9e3779b9;
      k1 += 0xbb67ae85;
    }
    const a = interleaveLow(x0, x2), b = interleaveLow(x1, x3);
    const c = interleaveHigh(x0, x2), d = interleaveHigh(x1, x3);
    left = apply(x, out, left, interleaveLow(a, b), limit, s);
    left = apply(x + 16, out + 16, left, interleaveHigh(a, b), limit, s);
    left = apply(x + 32, out + 32, left, interleaveLow(c, d), limit, s);
    left = apply(x + 48, out + 48, left, interleaveHigh(c, d), limit, s);
    x += 64;
    out += 64;
  }
}

/** Four elements, or what is left of them; gives what is left after. */
// @ts-ignore: decorator
@inline
function apply(x: usize, out: usize, left: i32, words: v128, limit: v128, scale: v128): i32 {
  if (left >= 4) {
    v128.store(out, keep(v128.load(x), words, limit, scale));
    return left - 4;
  }
  if (left > 0) storeRest(out, left, keep(loadRest(x, left, scale), words, limit, scale));
  return 0;
}

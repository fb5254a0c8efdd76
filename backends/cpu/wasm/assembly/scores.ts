// What attention does with a block of scores between its matrix products: see kernels/scores.ts, the plain twin.

import { addWide, exp4, loadRest, storeRest, totalWide } from "./vector";
import { rowMax, scaleRow, storeExp } from "./rows";

// @ts-ignore: decorator
@inline
function visibleColumns(row: i32, columns: i32, causal: bool, visible: i32): i32 {
  return causal ? min(max(visible + row, 0), columns) : columns;
}

export function scoresSoftmax(scores: usize, lse: usize, rows: i32, columns: i32, causal: bool, visible: i32): void {
  const stride = <usize>columns << 2;
  for (let row = 0; row < rows; row++, scores += stride) {
    const seen = visibleColumns(row, columns, causal, visible);
    const end = <usize>seen << 2;
    const m = rowMax(scores, seen);
    const sum = storeExp(scores, scores, seen, m);
    scaleRow(scores, scores, seen, <f32>(1 / sum));
    memory.fill(scores + end, 0, stride - end);
    store<f32>(lse + (<usize>row << 2), seen ? <f32>(<f64>m + Math.log(sum)) : <f32>-Infinity);
  }
}

/** Strides count elements. */
export function rowDots(rows: i32, columns: i32, a: usize, strideA: i32, b: usize, strideB: i32, out: usize): void {
  const whole = <usize>(columns & ~3) << 2;
  const rest = columns & 3;
  const zero = f32x4.splat(0);
  for (let row = 0; row < rows; row++, a += <usize>strideA << 2, b += <usize>strideB << 2) {
    let sums = f64x2.splat(0);
    for (let o: usize = 0; o < whole; o += 16) sums = addWide(sums, f32x4.mul(v128.load(a + o), v128.load(b + o)));
    if (rest) sums = addWide(sums, f32x4.mul(loadRest(a + whole, rest, zero), loadRest(b + whole, rest, zero)));
    store<f32>(out + (<usize>row << 2), <f32>totalWide(sums));
  }
}

export function scoresBackward(
  scores: usize, gradient: usize, lse: usize, dots: usize, rows: i32, columns: i32, causal: bool, visible: i32, scale: f32,
): void {
  const stride = <usize>columns << 2;
  const s = f32x4.splat(scale);
  for (let row = 0; row < rows; row++, scores += stride, gradient += stride) {
    const seen = visibleColumns(row, columns, causal, visible);
    const end = <usize>seen << 2;
    const whole = <usize>(seen & ~3) << 2;
    const rest = seen & 3;
    const shift = v128.load32_splat(lse + (<usize>row << 2));
    const dot = v128.load32_splat(dots + (<usize>row << 2));
    for (let o: usize = 0; o < whole; o += 16) {
      const p = exp4(f32x4.sub(v128.load(scores + o), shift));
      v128.store(scores + o, p);
      v128.store(gradient + o, f32x4.mul(f32x4.mul(p, s), f32x4.sub(v128.load(gradient + o), dot)));
    }
    if (rest) {
      const p = exp4(f32x4.sub(loadRest(scores + whole, rest, shift), shift));
      storeRest(scores + whole, rest, p);
      storeRest(gradient + whole, rest, f32x4.mul(f32x4.mul(p, s), f32x4.sub(loadRest(gradient + whole, rest, dot), dot)));
    }
    memory.fill(scores + end, 0, stride - end);
    memory.fill(gradient + end, 0, stride - end);
  }
}

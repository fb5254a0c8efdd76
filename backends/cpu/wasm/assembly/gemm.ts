// Single-precision matrix multiplication after GotoBLAS (Goto and van de Geijn, 2008): blocks of A and B are packed
// into panels that stay in cache, and a kernel keeps a tile of 6 x 8 of C in registers.

import { fma } from "./vector";

const TILE_M: i32 = 6;
const TILE_N: i32 = 8;
/** Block of A: 120 x 256 float32, 120 KiB, for the second-level cache. */
const BLOCK_M: i32 = 120;
const BLOCK_K: i32 = 256;
/** Block of B: 256 x 512 float32, 512 KiB. */
const BLOCK_N: i32 = 512;

// Packing buffers lie behind the module's constants, in the part of memory that the host leaves to it.
const packedA: usize = (__heap_base + 63) & ~63;
const packedB: usize = packedA + BLOCK_M * BLOCK_K * 4;
const edgeTile: usize = packedB + BLOCK_K * BLOCK_N * 4;

/** Where the module's part of memory ends: the host checks that nothing of its own lies below. */
export function staticEnd(): usize {
  return edgeTile + TILE_M * TILE_N * 4;
}

/** C = alpha * op(A) x op(B) (+ C). Strides count elements; `transposeA` says that A is stored k x m. */
export function sgemm(
  m: i32, n: i32, k: i32, alpha: f32,
  a: usize, lda: i32, transposeA: bool,
  b: usize, ldb: i32, transposeB: bool,
  c: usize, ldc: i32, accumulate: bool,
): void {
  const rowA: usize = <usize>(transposeA ? 1 : lda) << 2;
  const columnA: usize = <usize>(transposeA ? lda : 1) << 2;
  const rowB: usize = <usize>(transposeB ? 1 : ldb) << 2;
  const columnB: usize = <usize>(transposeB ? ldb : 1) << 2;
  const rowC: usize = <usize>ldc << 2;
  for (let j = 0; j < n; j += BLOCK_N) {
    const columns = min(BLOCK_N, n - j);
    for (let p = 0; p < k; p += BLOCK_K) {
      const depth = min(BLOCK_K, k - p);
      const keep = accumulate || p > 0;
      const blockB = b + <usize>p * rowB + <usize>j * columnB;
      if (transposeB) packAcross(blockB, columnB, columns, depth);
      else packAlong(blockB, rowB, columns, depth);
      for (let i = 0; i < m; i += BLOCK_M) {
        const rows = min(BLOCK_M, m - i);
        const blockA = a + <usize>i * rowA + <usize>p * columnA;
        if (transposeA) packRowsAlong(blockA, columnA, rows, depth);
        else packRowsAcross(blockA, rowA, rows, depth);
        multiplyBlocks(rows, columns, depth, alpha, c + <usize>i * rowC + (<usize>j << 2), rowC, keep);
      }
    }
  }
}

function multiplyBlocks(rows: i32, columns: i32, depth: i32, alpha: f32, c: usize, rowC: usize, keep: bool): void {
  for (let j = 0; j < columns; j += TILE_N) {
    const panelB = packedB + (<usize>(j * depth) << 2);
    for (let i = 0; i < rows; i += TILE_M) {
      const panelA = packedA + (<usize>(i * depth) << 2);
      const tile = c + <usize>i * rowC + (<usize>j << 2);
      if (i + TILE_M <= rows && j + TILE_N <= columns) {
        multiplyTile(depth, alpha, panelA, panelB, tile, rowC, keep);
      } else {
        multiplyTile(depth, alpha, panelA, panelB, edgeTile, TILE_N << 2, false);
        copyEdge(min(TILE_M, rows - i), min(TILE_N, columns - j), tile, rowC, keep);
      }
    }
  }
}

function copyEdge(rows: i32, columns: i32, c: usize, rowC: usize, keep: bool): void {
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const to = c + <usize>i * rowC + (<usize>j << 2);
      const value = load<f32>(edgeTile + (<usize>(i * TILE_N + j) << 2));
      store<f32>(to, keep ? load<f32>(to) + value : value);
    }
  }
}

function multiplyTile(depth: i32, alpha: f32, a: usize, b: usize, c: usize, rowC: usize, keep: bool): void {
  let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00;
  let c30 = c00, c31 = c00, c40 = c00, c41 = c00, c50 = c00, c51 = c00;
  for (let p = 0; p < depth; p++) {
    const b0 = v128.load(b), b1 = v128.load(b, 16);
    let x = v128.load32_splat(a);
    c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
    x = v128.load32_splat(a, 4);
    c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
    x = v128.load32_splat(a, 8);
    c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
    x = v128.load32_splat(a, 12);
    c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
    x = v128.load32_splat(a, 16);
    c40 = fma(x, b0, c40); c41 = fma(x, b1, c41);
    x = v128.load32_splat(a, 20);
    c50 = fma(x, b0, c50); c51 = fma(x, b1, c51);
    a += TILE_M << 2;
    b += TILE_N << 2;
  }
  storeRow(c, alpha, c00, c01, keep); c += rowC;
  storeRow(c, alpha, c10, c11, keep); c += rowC;
  storeRow(c, alpha, c20, c21, keep); c += rowC;
  storeRow(c, alpha, c30, c31, keep); c += rowC;
  storeRow(c, alpha, c40, c41, keep); c += rowC;
  storeRow(c, alpha, c50, c51, keep);
}

// @ts-ignore: decorator
@inline
function storeRow(c: usize, alpha: f32, x0: v128, x1: v128, keep: bool): void {
  const scale = f32x4.splat(alpha);
  x0 = f32x4.mul(x0, scale);
  x1 = f32x4.mul(x1, scale);
  if (keep) {
    x0 = f32x4.add(x0, v128.load(c));
    x1 = f32x4.add(x1, v128.load(c, 16));
  }
  v128.store(c, x0);
  v128.store(c, x1, 16);
}

/** Packs columns of a B stored k x n: each row of a panel is eight neighbours. */
function packAlong(b: usize, row: usize, columns: i32, depth: i32): void {
  let to = packedB;
  for (let j = 0; j < columns; j += TILE_N) {
    const rest = columns - j;
    let from = b + (<usize>j << 2);
    for (let p = 0; p < depth; p++, from += row, to += TILE_N << 2) {
      if (rest >= TILE_N) {
        v128.store(to, v128.load(from));
        v128.store(to, v128.load(from, 16), 16);
      } else {
        copyPadded(from, to, rest, TILE_N);
      }
    }
  }
}

/** Packs rows of an A stored k x m: each column of a panel is six neighbours. */
function packRowsAlong(a: usize, column: usize, rows: i32, depth: i32): void {
  let to = packedA;
  for (let i = 0; i < rows; i += TILE_M) {
    const rest = rows - i;
    let from = a + (<usize>i << 2);
    for (let p = 0; p < depth; p++, from += column, to += TILE_M << 2) {
      if (rest >= TILE_M) {
        v128.store(to, v128.load(from));
        store<u64>(to, load<u64>(from, 16), 16);
      } else {
        copyPadded(from, to, rest, TILE_M);
      }
    }
  }
}

function copyPadded(from: usize, to: usize, count: i32, width: i32): void {
  for (let i = 0; i < width; i++) {
    store<f32>(to + (<usize>i << 2), i < count ? load<f32>(from + (<usize>i << 2)) : 0);
  }
}

/** Packs columns of a B stored n x k: eight rows are transposed, four steps at a time. */
function packAcross(b: usize, row: usize, columns: i32, depth: i32): void {
  let to = packedB;
  for (let j = 0; j < columns; j += TILE_N) {
    const rest = columns - j;
    const from = b + <usize>j * row;
    let p = 0;
    if (rest >= TILE_N) {
      for (; p + 4 <= depth; p += 4, to += TILE_N << 4) {
        const at = from + (<usize>p << 2);
        transpose(at, row, to, TILE_N << 2);
        transpose(at + 4 * row, row, to + 16, TILE_N << 2);
      }
    }
    for (; p < depth; p++, to += TILE_N << 2) gather(from + (<usize>p << 2), row, to, rest, TILE_N);
  }
}

/** Packs rows of an A stored m x k: six rows are transposed, four steps at a time. */
function packRowsAcross(a: usize, row: usize, rows: i32, depth: i32): void {
  let to = packedA;
  for (let i = 0; i < rows; i += TILE_M) {
    const rest = rows - i;
    const from = a + <usize>i * row;
    let p = 0;
    if (rest >= TILE_M) {
      for (; p + 4 <= depth; p += 4, to += TILE_M << 4) {
        const at = from + (<usize>p << 2);
        transpose(at, row, to, TILE_M << 2);
        const x = v128.load(at + 4 * row), y = v128.load(at + 5 * row);
        const low = i8x16.shuffle(x, y, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
        const high = i8x16.shuffle(x, y, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
        v128.store_lane<u64>(to, low, 0, 16);
        v128.store_lane<u64>(to, low, 1, 40);
        v128.store_lane<u64>(to, high, 0, 64);
        v128.store_lane<u64>(to, high, 1, 88);
      }
    }
    for (; p < depth; p++, to += TILE_M << 2) gather(from + (<usize>p << 2), row, to, rest, TILE_M);
  }
}

function gather(from: usize, stride: usize, to: usize, count: i32, width: i32): void {
  for (let i = 0; i < width; i++) {
    store<f32>(to + (<usize>i << 2), i < count ? load<f32>(from + <usize>i * stride) : 0);
  }
}

/** Writes the transpose of 4 x 4 elements. */
// @ts-ignore: decorator
@inline
function transpose(from: usize, row: usize, to: usize, toRow: usize): void {
  const x0 = v128.load(from), x1 = v128.load(from + row), x2 = v128.load(from + 2 * row), x3 = v128.load(from + 3 * row);
  const a = i8x16.shuffle(x0, x1, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const b = i8x16.shuffle(x0, x1, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  const c = i8x16.shuffle(x2, x3, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const d = i8x16.shuffle(x2, x3, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  v128.store(to, i8x16.shuffle(a, c, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23));
  v128.store(to + toRow, i8x16.shuffle(a, c, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31));
  v128.store(to + 2 * toRow, i8x16.shuffle(b, d, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23));
  v128.store(to + 3 * toRow, i8x16.shuffle(b, d, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31));
}

/**
 * Scaled dot-product attention and its gradients, built from matrix products over blocks of query rows, so that the
 * matrix of all scores never exists. Keys that no row of a block may see are skipped. The backward pass computes the
 * probabilities again from the saved log of the sum of exponentials, as FlashAttention does (Dao et al., 2022).
 *
 * Query, key and value may be slices of one packed buffer: every operand is reached by its strides.
 *
 * @module
 */
import { DTYPES, type DType } from "../../../core/contracts/dtype.ts";
import { DeviceError, ShapeError } from "../../../core/contracts/errors.ts";
import type { AttentionShape, HeadsOperand, Kernels } from "../../../core/contracts/kernels.ts";
import { type GemmEngine, type GemmFunction, gemmOf } from "../gemm/gemm.ts";
import { type Heap, requireLength } from "./heap.ts";
import type { ScoreBlock, ScoreKernels } from "./scores.ts";
import { requireWithin } from "./strides.ts";

/** Query rows of a block: its scores stay in cache up to a few thousand keys. */
const BLOCK_ROWS = 64;

/** See `Kernels.attention`. */
export function attention(
  heap: Heap,
  engine: GemmEngine,
  scores: ScoreKernels,
  args: Parameters<Kernels["attention"]>[0],
): void {
  const { shape, query, key, value, out, logSumExp } = args;
  const { dtype, bytes } = check("attention", shape, logSumExp, [query, out], [key, value]);
  if (isEmpty(shape)) return;
  const multiply = productOf(gemmOf(engine, dtype));
  const { headDim: d, scale } = shape;
  const work = heap.scratch(bytes * BLOCK_ROWS * Math.max(1, shape.keyLength));
  const lse = heap.address(logSumExp);
  const [q, k, v, o] = [query, key, value, out].map((of) => headRows(heap, of, d, bytes)) as FourHeads;
  forEachBlock(shape, dtype, ({ batch, head, keyHead, begin, first }, block) => {
    const { rows, columns } = block;
    const queries = q(batch, head, begin);
    const results = o(batch, head, begin);
    const probabilities = { address: work, stride: columns };
    if (columns > 0) {
      const keys = k(batch, keyHead);
      multiply(rows, columns, d, scale, queries, false, keys, true, probabilities, false);
    }
    scores.softmax(block, work, lse + first * bytes);
    if (columns > 0) {
      const values = v(batch, keyHead);
      multiply(rows, d, columns, 1, probabilities, false, values, false, results, false);
    } else zeroRows(heap, dtype, results, rows, d, bytes);
  });
}

/** See `Kernels.attentionBackward`. */
export function attentionBackward(
  heap: Heap,
  engine: GemmEngine,
  scores: ScoreKernels,
  args: Parameters<Kernels["attentionBackward"]>[0],
): void {
  const { shape, query, key, value, out, logSumExp, gradient, dQuery, dKey, dValue } = args;
  const ofQuery = [query, out, gradient, dQuery];
  const ofKey = [key, value, dKey, dValue];
  const { dtype, bytes } = check("attention backward", shape, logSumExp, ofQuery, ofKey);
  const { headDim: d, scale } = shape;
  const [q, o, g, dq] = ofQuery.map((of) => headRows(heap, of, d, bytes)) as FourHeads;
  const [k, v, dk, dv] = ofKey.map((of) => headRows(heap, of, d, bytes)) as FourHeads;
  for (let batch = 0; batch < shape.batch; batch++) {
    for (const target of [dk, dv]) {
      zeroRows(heap, dtype, target(batch, 0), shape.keyLength, shape.keyHeads * d, bytes);
    }
  }
  if (isEmpty(shape)) return;
  const multiply = productOf(gemmOf(engine, dtype));
  const blockBytes = bytes * BLOCK_ROWS * Math.max(1, shape.keyLength);
  const work = heap.scratch(2 * blockBytes + BLOCK_ROWS * bytes);
  const dWork = work + blockBytes;
  const dots = dWork + blockBytes;
  const lse = heap.address(logSumExp);
  forEachBlock(shape, dtype, ({ batch, head, keyHead, begin, first }, block) => {
    const { rows, columns } = block;
    const dQueries = dq(batch, head, begin);
    if (columns === 0) {
      zeroRows(heap, dtype, dQueries, rows, d, bytes);
      return;
    }
    const queries = q(batch, head, begin);
    const outputs = o(batch, head, begin);
    const gradients = g(batch, head, begin);
    const keys = k(batch, keyHead);
    const values = v(batch, keyHead);
    const probabilities = { address: work, stride: columns };
    const slopes = { address: dWork, stride: columns };
    const { address, stride } = outputs;
    scores.rowDots(dtype, rows, d, address, stride, gradients.address, gradients.stride, dots);
    multiply(rows, columns, d, scale, queries, false, keys, true, probabilities, false);
    multiply(rows, columns, d, 1, gradients, false, values, true, slopes, false);
    scores.backward(block, work, dWork, lse + first * bytes, dots, scale);
    multiply(rows, d, columns, 1, slopes, false, keys, false, dQueries, false);
    multiply(columns, d, rows, 1, slopes, true, queries, false, dk(batch, keyHead), true);
    multiply(columns, d, rows, 1, probabilities, true, gradients, false, dv(batch, keyHead), true);
  });
}

/** Rows in memory: the byte address of the first, and elements between them. */
interface Rows {
  readonly address: number;
  readonly stride: number;
}

/** `c = alpha * op(a) x op(b) (+ c)`, as a `GemmFunction` has it. */
type Product = (
  m: number,
  n: number,
  k: number,
  alpha: number,
  a: Rows,
  transposeA: boolean,
  b: Rows,
  transposeB: boolean,
  c: Rows,
  accumulate: boolean,
) => void;

function productOf(gemm: GemmFunction): Product {
  return (m, n, k, alpha, a, transposeA, b, transposeB, c, accumulate) =>
    gemm(
      m,
      n,
      k,
      alpha,
      a.address,
      a.stride,
      transposeA,
      b.address,
      b.stride,
      transposeB,
      c.address,
      c.stride,
      accumulate,
    );
}

/** Rows of one head of an operand, from one on. */
type HeadRows = (batch: number, head: number, row?: number) => Rows;

/** Those of four operands. */
type FourHeads = [HeadRows, HeadRows, HeadRows, HeadRows];

function headRows(heap: Heap, operand: HeadsOperand, d: number, bytes: number): HeadRows {
  const { span, batchStride, rowStride } = operand;
  const start = heap.address(span);
  return (batch, head, row = 0) => ({
    address: start + (batch * batchStride + head * d + row * rowStride) * bytes,
    stride: rowStride,
  });
}

function isEmpty({ batch, heads, queryLength, headDim }: AttentionShape): boolean {
  return batch * heads * queryLength * headDim === 0;
}

/** Where a block of query rows is. */
interface Place {
  readonly batch: number;
  readonly head: number;
  readonly keyHead: number;
  /** Its first row in the head, and among all rows of all heads. */
  readonly begin: number;
  readonly first: number;
}

/** Blocks of query rows of every head, each with the keys that any of its rows sees. */
function forEachBlock(
  shape: AttentionShape,
  dtype: ScoreBlock["dtype"],
  visit: (place: Place, block: ScoreBlock) => void,
): void {
  const { heads, queryLength, keyLength, causal } = shape;
  for (let n = 0; n < shape.batch * heads; n++) {
    const head = n % heads;
    const keyHead = Math.floor((head * shape.keyHeads) / heads);
    const ofHead = { batch: Math.floor(n / heads), head, keyHead };
    for (let begin = 0; begin < queryLength; begin += BLOCK_ROWS) {
      const rows = Math.min(BLOCK_ROWS, queryLength - begin);
      const visible = keyLength - queryLength + begin + 1;
      const columns = causal ? Math.min(Math.max(visible + rows - 1, 0), keyLength) : keyLength;
      visit({ ...ofHead, begin, first: n * queryLength + begin }, { dtype, rows, columns, causal, visible });
    }
  }
}

function zeroRows(
  heap: Heap,
  dtype: ScoreBlock["dtype"],
  { address, stride }: Rows,
  rows: number,
  columns: number,
  bytes: number,
): void {
  const memory = dtype === "float64" ? heap.float64() : heap.float32();
  for (let row = 0; row < rows; row++) {
    const begin = address / bytes + row * stride;
    memory.fill(0, begin, begin + columns);
  }
}

function check(
  kernel: string,
  shape: AttentionShape,
  logSumExp: HeadsOperand["span"],
  ofQuery: readonly HeadsOperand[],
  ofKey: readonly HeadsOperand[],
): { dtype: "float32" | "float64"; bytes: number } {
  const dtype = logSumExp.dtype;
  if (dtype !== "float32" && dtype !== "float64") {
    throw new DeviceError(`cpu ${kernel}: statistics are ${dtype}, allowed: float32, float64`);
  }
  requireHeads(kernel, dtype, shape, logSumExp, ofQuery, ofKey);
  return { dtype, bytes: DTYPES[dtype].bytes };
}

/** @throws ShapeError for operands of another dtype, that reach beyond their spans, or whose rows overlap. */
export function requireHeads(
  kernel: string,
  dtype: DType,
  shape: AttentionShape,
  logSumExp: HeadsOperand["span"],
  ofQuery: readonly HeadsOperand[],
  ofKey: readonly HeadsOperand[],
): void {
  if (shape.heads > 0 && (shape.keyHeads < 1 || shape.heads % shape.keyHeads !== 0)) {
    throw new ShapeError(
      `cpu ${kernel}: ${shape.heads} heads over ${shape.keyHeads} key heads, allowed: a multiple`,
    );
  }
  const { batch, heads, keyHeads, queryLength, keyLength, headDim } = shape;
  requireLength(kernel, logSumExp, batch * heads * queryLength);
  for (const [operands, rows, width] of [
    [ofQuery, queryLength, heads * headDim],
    [ofKey, keyLength, keyHeads * headDim],
  ] as const) {
    for (const { span, batchStride, rowStride } of operands) {
      if (span.dtype !== dtype)
        throw new ShapeError(`cpu ${kernel}: operands are ${span.dtype} and ${dtype}`);
      requireWithin(kernel, span, 0, [batch, rows, width], [batchStride, rowStride, 1]);
      if (rows > 1 && rowStride < width) {
        throw new ShapeError(
          `cpu ${kernel}: rows of ${width} elements lie ${rowStride} apart, allowed: at least their length`,
        );
      }
    }
  }
}

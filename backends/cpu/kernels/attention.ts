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
import { type GemmEngine, gemmOf } from "../gemm/gemm.ts";
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
  const { shape, query, key, value, out } = args;
  const { dtype, bytes } = check("attention", shape, args.logSumExp, [query, out], [key, value]);
  if (isEmpty(shape)) return;
  const gemm = gemmOf(engine, dtype);
  const d = shape.headDim;
  const work = heap.scratch(bytes * BLOCK_ROWS * Math.max(1, shape.keyLength));
  const lse = heap.address(args.logSumExp);
  forEachHead(shape, (batch, head, keyHead) => {
    const q = headAddress(heap, query, batch, head, d, bytes);
    const k = headAddress(heap, key, batch, keyHead, d, bytes);
    const v = headAddress(heap, value, batch, keyHead, d, bytes);
    const o = headAddress(heap, out, batch, head, d, bytes);
    const lseHead = lse + (batch * shape.heads + head) * shape.queryLength * bytes;
    forEachBlock(shape, dtype, (begin, block) => {
      const { rows, columns } = block;
      const qBlock = q + begin * query.rowStride * bytes;
      const oBlock = o + begin * out.rowStride * bytes;
      if (columns > 0) {
        gemm(
          rows,
          columns,
          d,
          shape.scale,
          qBlock,
          query.rowStride,
          false,
          k,
          key.rowStride,
          true,
          work,
          columns,
          false,
        );
      }
      scores.softmax(block, work, lseHead + begin * bytes);
      if (columns > 0)
        gemm(
          rows,
          d,
          columns,
          1,
          work,
          columns,
          false,
          v,
          value.rowStride,
          false,
          oBlock,
          out.rowStride,
          false,
        );
      else zeroRows(heap, dtype, oBlock, out.rowStride, rows, d, bytes);
    });
  });
}

/** See `Kernels.attentionBackward`. */
export function attentionBackward(
  heap: Heap,
  engine: GemmEngine,
  scores: ScoreKernels,
  args: Parameters<Kernels["attentionBackward"]>[0],
): void {
  const { shape, query, key, value, out, gradient, dQuery, dKey, dValue } = args;
  const ofQuery = [query, out, gradient, dQuery];
  const { dtype, bytes } = check("attention backward", shape, args.logSumExp, ofQuery, [
    key,
    value,
    dKey,
    dValue,
  ]);
  const d = shape.headDim;
  for (let batch = 0; batch < shape.batch; batch++) {
    for (const target of [dKey, dValue]) {
      const first = headAddress(heap, target, batch, 0, d, bytes);
      zeroRows(heap, dtype, first, target.rowStride, shape.keyLength, shape.keyHeads * d, bytes);
    }
  }
  if (isEmpty(shape)) return;
  const gemm = gemmOf(engine, dtype);
  const blockBytes = bytes * BLOCK_ROWS * Math.max(1, shape.keyLength);
  const work = heap.scratch(2 * blockBytes + BLOCK_ROWS * bytes);
  const dWork = work + blockBytes;
  const dots = dWork + blockBytes;
  const lse = heap.address(args.logSumExp);
  forEachHead(shape, (batch, head, keyHead) => {
    const q = headAddress(heap, query, batch, head, d, bytes);
    const k = headAddress(heap, key, batch, keyHead, d, bytes);
    const v = headAddress(heap, value, batch, keyHead, d, bytes);
    const o = headAddress(heap, out, batch, head, d, bytes);
    const g = headAddress(heap, gradient, batch, head, d, bytes);
    const dq = headAddress(heap, dQuery, batch, head, d, bytes);
    const dk = headAddress(heap, dKey, batch, keyHead, d, bytes);
    const dv = headAddress(heap, dValue, batch, keyHead, d, bytes);
    const lseHead = lse + (batch * shape.heads + head) * shape.queryLength * bytes;
    forEachBlock(shape, dtype, (begin, block) => {
      const { rows, columns } = block;
      const qBlock = q + begin * query.rowStride * bytes;
      const gBlock = g + begin * gradient.rowStride * bytes;
      const dqBlock = dq + begin * dQuery.rowStride * bytes;
      if (columns === 0) {
        zeroRows(heap, dtype, dqBlock, dQuery.rowStride, rows, d, bytes);
        return;
      }
      const oBlock = o + begin * out.rowStride * bytes;
      scores.rowDots(dtype, rows, d, oBlock, out.rowStride, gBlock, gradient.rowStride, dots);
      gemm(
        rows,
        columns,
        d,
        shape.scale,
        qBlock,
        query.rowStride,
        false,
        k,
        key.rowStride,
        true,
        work,
        columns,
        false,
      );
      gemm(
        rows,
        columns,
        d,
        1,
        gBlock,
        gradient.rowStride,
        false,
        v,
        value.rowStride,
        true,
        dWork,
        columns,
        false,
      );
      scores.backward(block, work, dWork, lseHead + begin * bytes, dots, shape.scale);
      gemm(
        rows,
        d,
        columns,
        1,
        dWork,
        columns,
        false,
        k,
        key.rowStride,
        false,
        dqBlock,
        dQuery.rowStride,
        false,
      );
      gemm(
        columns,
        d,
        rows,
        1,
        dWork,
        columns,
        true,
        qBlock,
        query.rowStride,
        false,
        dk,
        dKey.rowStride,
        true,
      );
      gemm(
        columns,
        d,
        rows,
        1,
        work,
        columns,
        true,
        gBlock,
        gradient.rowStride,
        false,
        dv,
        dValue.rowStride,
        true,
      );
    });
  });
}

function isEmpty({ batch, heads, queryLength, headDim }: AttentionShape): boolean {
  return batch * heads * queryLength * headDim === 0;
}

function forEachHead(
  shape: AttentionShape,
  visit: (batch: number, head: number, keyHead: number) => void,
): void {
  for (let batch = 0; batch < shape.batch; batch++) {
    for (let head = 0; head < shape.heads; head++) {
      visit(batch, head, Math.floor((head * shape.keyHeads) / shape.heads));
    }
  }
}

/** Blocks of query rows, each with the keys that any of its rows sees. */
function forEachBlock(
  shape: AttentionShape,
  dtype: ScoreBlock["dtype"],
  visit: (begin: number, block: ScoreBlock) => void,
): void {
  const { queryLength, keyLength, causal } = shape;
  for (let begin = 0; begin < queryLength; begin += BLOCK_ROWS) {
    const rows = Math.min(BLOCK_ROWS, queryLength - begin);
    const visible = keyLength - queryLength + begin + 1;
    const columns = causal ? Math.min(Math.max(visible + rows - 1, 0), keyLength) : keyLength;
    visit(begin, { dtype, rows, columns, causal, visible });
  }
}

function headAddress(
  heap: Heap,
  operand: HeadsOperand,
  batch: number,
  head: number,
  d: number,
  bytes: number,
): number {
  return heap.address(operand.span) + (batch * operand.batchStride + head * d) * bytes;
}

function zeroRows(
  heap: Heap,
  dtype: ScoreBlock["dtype"],
  address: number,
  rowStride: number,
  rows: number,
  columns: number,
  bytes: number,
): void {
  const memory = dtype === "float64" ? heap.float64() : heap.float32();
  for (let row = 0; row < rows; row++) {
    const begin = address / bytes + row * rowStride;
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

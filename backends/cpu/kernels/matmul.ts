/**
 * Batched matrix products over strided operands, on whichever gemm engine was chosen.
 *
 * @module
 */
import { DTYPES } from "../../../core/contracts/dtype.ts";
import { DeviceError, ShapeError } from "../../../core/contracts/errors.ts";
import type { MatmulArgs, MatrixOperand } from "../../../core/contracts/kernels.ts";
import { type GemmEngine, gemmOf } from "../gemm/gemm.ts";
import { COMPUTE_DTYPES, floatsOf, type Heap } from "./heap.ts";
import { requireWithin } from "./strides.ts";

/** See `Kernels.matmul`. */
export function matmul(heap: Heap, engine: GemmEngine, args: MatmulArgs): void {
  const { a, b, out, n, alpha = 1, bias } = args;
  const dtype = out.span.dtype;
  check(args);
  requireMatrices(args);
  if (args.batch === 0 || args.m === 0 || n === 0) return;
  const { batch, m } = mergedBatch(args);
  const bytes = DTYPES[dtype].bytes;
  const addressA = heap.address(a.span);
  const addressB = heap.address(b.span);
  const addressOut = heap.address(out.span);
  const gemm = gemmOf(engine, dtype);
  const onto = bias !== undefined || args.accumulate === true || args.k === 0;
  if (onto) prepare(heap, args);
  if (args.k === 0) return;
  for (let i = 0; i < batch; i++) {
    gemm(
      m,
      n,
      args.k,
      alpha,
      addressA + i * a.batchStride * bytes,
      a.rowStride,
      a.transposed,
      addressB + i * b.batchStride * bytes,
      b.rowStride,
      b.transposed,
      addressOut + i * out.batchStride * bytes,
      out.rowStride,
      onto,
    );
  }
}

/** Matrices that lie behind each other and meet one common right operand are one tall matrix. */
export function mergedBatch({ a, b, out, batch, m }: MatmulArgs): { batch: number; m: number } {
  const tall =
    !a.transposed &&
    a.batchStride === m * a.rowStride &&
    out.batchStride === m * out.rowStride &&
    b.batchStride === 0;
  return tall && batch > 1 ? { batch: 1, m: batch * m } : { batch, m };
}

/** Makes `out` what the product is added to: the bias, what it held, or zero. */
function prepare(heap: Heap, { out, batch, m, n, bias, accumulate }: MatmulArgs): void {
  const target = floatsOf(heap, "matmul", out.span, 0);
  const row = bias && floatsOf(heap, "matmul bias", bias, n);
  for (let i = 0; i < batch; i++) {
    for (let r = 0; r < m; r++) {
      const begin = i * out.batchStride + r * out.rowStride;
      if (!accumulate) {
        if (row === undefined) target.fill(0, begin, begin + n);
        else target.set(row.length === n ? row : row.subarray(0, n), begin);
      } else if (row !== undefined) {
        for (let j = 0; j < n; j++) target[begin + j]! += row[j]!;
      }
    }
  }
}

function check({ a, b, out }: MatmulArgs): void {
  const dtype = out.span.dtype;
  if (dtype !== "float32" && dtype !== "float64") {
    throw new DeviceError(`cpu matmul: ${dtype} is not computed in, allowed: ${COMPUTE_DTYPES.join(", ")}`);
  }
  if (a.span.dtype !== dtype || b.span.dtype !== dtype) {
    throw new ShapeError(
      `cpu matmul: operands are ${a.span.dtype} and ${b.span.dtype}, the result is ${dtype}`,
    );
  }
}

/**
 * Engines take bare addresses, so what they may touch is settled here.
 *
 * @throws ShapeError for matrices that reach beyond their spans, and for rows that overlap.
 */
export function requireMatrices({ a, b, out, batch, m, n, k }: MatmulArgs): void {
  if (out.transposed) throw new ShapeError("cpu matmul: the result is transposed, allowed: operands only");
  requireMatrix("matmul a", a, batch, m, k);
  requireMatrix("matmul b", b, batch, k, n);
  requireMatrix("matmul out", out, batch, m, n);
}

function requireMatrix(
  what: string,
  operand: MatrixOperand,
  batch: number,
  rows: number,
  columns: number,
): void {
  const [r, c] = operand.transposed ? [columns, rows] : [rows, columns];
  requireWithin(what, operand.span, 0, [batch, r, c], [operand.batchStride, operand.rowStride, 1]);
  if (r > 1 && operand.rowStride < c) {
    throw new ShapeError(
      `cpu ${what}: rows of ${c} elements lie ${operand.rowStride} apart, allowed: at least their length`,
    );
  }
}

/**
 * Matrix products of 16-bit floats: blocks of the operands are widened, multiplied in float32, added up there over the
 * whole depth, and rounded once. To widen a block costs as much as a thousandth of its multiplications.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { Kernels, MatmulArgs, MatrixOperand } from "../../../core/contracts/kernels.ts";
import { isHalf } from "../../../core/runtime/half/plain.ts";
import { activatedMatmul } from "../kernels/activation.ts";
import { requireLength } from "../kernels/heap.ts";
import { mergedBatch, requireMatrices } from "../kernels/matmul.ts";
import {
  anyHalf,
  commonHalf,
  type HalfContext,
  narrow,
  part,
  requireDType,
  widen,
  workspaces,
} from "./context.ts";

/**
 * The kernel; what has no 16-bit operand goes to the float32 one. The result and the bias may be float32. An activation
 * is of the sum before it is rounded.
 */
export function halfMatmul(context: HalfContext): Kernels["matmul"] {
  const { float32 } = context;
  const matmul: Kernels["matmul"] = (args) => {
    const { a, b, out, bias, activation, preactivation, accumulate = false } = args;
    const spans = [a.span, b.span, out.span, ...(bias ? [bias] : [])];
    if (!anyHalf(...spans)) return float32.matmul(args);
    requireDType("matmul", commonHalf("matmul", spans), [a.span, b.span]);
    if (activation !== undefined && (accumulate || !isHalf(out.span.dtype))) {
      return activatedMatmul({ matmul, unary: float32.unary })(args);
    }
    requireMatrices(args);
    if (bias) requireLength("matmul bias", bias, args.n);
    if (preactivation) {
      requireDType("matmul", out.span.dtype, [preactivation]);
      requireLength("matmul preactivation", preactivation, out.span.length);
    }
    if (args.batch > 0 && args.m > 0 && args.n > 0) product(context, args);
  };
  return matmul;
}

function product(context: HalfContext, args: MatmulArgs): void {
  const { a, b, out, n, k, bias, accumulate = false } = args;
  const { batch, m } = mergedBatch(args);
  const { block } = context.sizes;
  const [rows, columns, depth] = [Math.min(m, block), Math.min(n, block), Math.max(1, Math.min(k, block))];
  const lengths = [rows * depth, depth * columns, rows * columns, columns] as const;
  const [spaceA, spaceB, space, biasSpace] = workspaces(context.heap, lengths) as [Span, Span, Span, Span];
  const blockA = new WidenedBlock(context, a, spaceA);
  const blockB = new WidenedBlock(context, b, spaceB);
  for (let matrix = 0; matrix < batch; matrix++) {
    for (let j = 0; j < n; j += columns) {
      const width = Math.min(columns, n - j);
      const biasPart = bias && widenedRow(context, part(bias, j, width), biasSpace);
      for (let i = 0; i < m; i += rows) {
        const height = Math.min(rows, m - i);
        const place = { first: matrix * out.batchStride + i * out.rowStride + j, height, width };
        const result = resultBlock(context, args, place, space);
        for (let p = 0; p === 0 || p < k; p += depth) {
          const deep = Math.min(depth, k - p);
          context.float32.matmul({
            a: blockA.at(matrix, i, p, height, deep),
            b: blockB.at(matrix, p, j, deep, width),
            out: result.sums,
            ...{ batch: 1, m: height, n: width, k: deep, alpha: args.alpha ?? 1 },
            ...(biasPart && p === 0 ? { bias: biasPart } : {}),
            accumulate: accumulate || p > 0,
          });
        }
        result.finish();
      }
    }
  }
}

/** A part of the result: where its sums are, and what is done when they are complete. */
function resultBlock(
  context: HalfContext,
  { out, accumulate, activation, preactivation }: MatmulArgs,
  { first, height, width }: { first: number; height: number; width: number },
  space: Span,
): { sums: MatrixOperand; finish: () => void } {
  const { rowStride } = out;
  const reach = (height - 1) * rowStride + width;
  const target = part(out.span, first, reach);
  if (!isHalf(target.dtype)) {
    return { sums: { span: target, rowStride, batchStride: 0, transposed: false }, finish: () => {} };
  }
  const span = part(space, 0, height * width);
  if (accumulate) widen(context, target, span, height, width, rowStride);
  const finish = (): void => {
    if (preactivation) narrow(context, span, part(preactivation, first, reach), height, width, rowStride);
    if (activation) context.float32.unary(activation, span, span);
    narrow(context, span, target, height, width, rowStride);
  };
  return { sums: { span, rowStride: width, batchStride: 0, transposed: false }, finish };
}

/** Blocks of an operand in float32; one that is asked for again is not widened again. */
class WidenedBlock {
  readonly #context: HalfContext;
  readonly #operand: MatrixOperand;
  readonly #space: Span;
  #held = "";

  constructor(context: HalfContext, operand: MatrixOperand, space: Span) {
    this.#context = context;
    this.#operand = operand;
    this.#space = space;
  }

  /** Rows and columns of the matrix that is multiplied. */
  at(matrix: number, row: number, column: number, rows: number, columns: number): MatrixOperand {
    const { span, rowStride, batchStride, transposed } = this.#operand;
    const [i, j, height, width] = transposed ? [column, row, columns, rows] : [row, column, rows, columns];
    const first = matrix * batchStride + i * rowStride + j;
    const block = part(this.#space, 0, height * width);
    const wanted = `${first} ${height} ${width}`;
    if (wanted !== this.#held && height * width > 0) {
      widen(
        this.#context,
        part(span, first, (height - 1) * rowStride + width),
        block,
        height,
        width,
        rowStride,
      );
      this.#held = wanted;
    }
    return { span: block, rowStride: width, batchStride: 0, transposed };
  }
}

function widenedRow(context: HalfContext, row: Span, space: Span): Span {
  if (!isHalf(row.dtype)) return row;
  const wide = part(space, 0, row.length);
  widen(context, row, wide, 1, row.length);
  return wide;
}

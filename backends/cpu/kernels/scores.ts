/**
 * What attention does with a block of scores between its matrix products, in plain TypeScript.
 *
 * Like gemm, these work on byte addresses. Rows are contiguous; under a causal mask row t sees the first
 * `visible + t` columns, otherwise all of them. Columns out of sight get 0.
 *
 * @module
 */
import type { DType } from "../../../core/contracts/dtype.ts";
import type { Floats, Heap } from "./heap.ts";

/** A block of scores. */
export interface ScoreBlock {
  readonly dtype: DType;
  readonly rows: number;
  readonly columns: number;
  readonly causal: boolean;
  /** Columns that row 0 sees when causal; may be negative. */
  readonly visible: number;
}

/** The steps between matrix products. */
export interface ScoreKernels {
  /** Scores become probabilities in place; `logSumExp` gets one value a row (-Infinity where nothing is seen). */
  softmax(block: ScoreBlock, scores: number, logSumExp: number): void;
  /** `out[row] = sum(a[row] * b[row])` over `columns` elements. */
  rowDots(
    dtype: DType,
    rows: number,
    columns: number,
    a: number,
    strideA: number,
    b: number,
    strideB: number,
    out: number,
  ): void;
  /**
   * Scores become probabilities again, from `logSumExp`; `gradient`, that of the probabilities, becomes that of the
   * scores before scaling: `P * (gradient - dots) * scale`.
   */
  backward(
    block: ScoreBlock,
    scores: number,
    gradient: number,
    logSumExp: number,
    dots: number,
    scale: number,
  ): void;
}

/** Columns that row `row` sees. */
function visibleColumns(block: ScoreBlock, row: number): number {
  return block.causal ? Math.min(Math.max(block.visible + row, 0), block.columns) : block.columns;
}

/** The plain steps over a device's memory. */
export function plainScores(heap: Heap): ScoreKernels {
  const memory = (dtype: DType): [Floats, number] =>
    dtype === "float64" ? [heap.float64(), 8] : [heap.float32(), 4];
  return {
    softmax(block, scores, logSumExp) {
      const [data, bytes] = memory(block.dtype);
      for (let row = 0; row < block.rows; row++) {
        const begin = scores / bytes + row * block.columns;
        const end = begin + block.columns;
        const seen = begin + visibleColumns(block, row);
        let max = Number.NEGATIVE_INFINITY;
        for (let i = begin; i < seen; i++) max = Math.max(max, data[i]!);
        let sum = 0;
        for (let i = begin; i < seen; i++) sum += Math.exp(data[i]! - max);
        for (let i = begin; i < seen; i++) data[i] = Math.exp(data[i]! - max) / sum;
        data.fill(0, seen, end);
        data[logSumExp / bytes + row] = seen > begin ? max + Math.log(sum) : Number.NEGATIVE_INFINITY;
      }
    },
    rowDots(dtype, rows, columns, a, strideA, b, strideB, out) {
      const [data, bytes] = memory(dtype);
      for (let row = 0; row < rows; row++) {
        const p = a / bytes + row * strideA;
        const q = b / bytes + row * strideB;
        let sum = 0;
        for (let i = 0; i < columns; i++) sum += data[p + i]! * data[q + i]!;
        data[out / bytes + row] = sum;
      }
    },
    backward(block, scores, gradient, logSumExp, dots, scale) {
      const [data, bytes] = memory(block.dtype);
      for (let row = 0; row < block.rows; row++) {
        const p = scores / bytes + row * block.columns;
        const g = gradient / bytes + row * block.columns;
        const seen = visibleColumns(block, row);
        const lse = data[logSumExp / bytes + row]!;
        const dot = data[dots / bytes + row]!;
        for (let i = 0; i < seen; i++) {
          const probability = Math.exp(data[p + i]! - lse);
          data[p + i] = probability;
          data[g + i] = probability * (data[g + i]! - dot) * scale;
        }
        data.fill(0, p + seen, p + block.columns);
        data.fill(0, g + seen, g + block.columns);
      }
    },
  };
}

/**
 * Attention's steps between matrix products in WebAssembly SIMD for float32; float64 goes to the plain twin.
 *
 * @module
 */
import type { ScoreKernels } from "../kernels/scores.ts";
import type { WasmKernels } from "../wasm/load.ts";

/** The fast steps. */
export function fastScores(plain: ScoreKernels, wasm: WasmKernels): ScoreKernels {
  return {
    softmax(block, scores, logSumExp) {
      if (block.dtype !== "float32") return plain.softmax(block, scores, logSumExp);
      wasm.scoresSoftmax(scores, logSumExp, block.rows, block.columns, +block.causal, block.visible);
    },
    rowDots(dtype, rows, columns, a, strideA, b, strideB, out) {
      if (dtype !== "float32") return plain.rowDots(dtype, rows, columns, a, strideA, b, strideB, out);
      wasm.rowDots(rows, columns, a, strideA, b, strideB, out);
    },
    backward(block, scores, gradient, logSumExp, dots, scale) {
      if (block.dtype !== "float32") return plain.backward(block, scores, gradient, logSumExp, dots, scale);
      const { rows, columns, causal, visible } = block;
      wasm.scoresBackward(scores, gradient, logSumExp, dots, rows, columns, +causal, visible, scale);
    },
  };
}

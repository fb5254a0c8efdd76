/**
 * The reference kernels: every one in plain TypeScript, matrix products by the engine that is given.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { Kernels, RandomKey } from "../../../core/contracts/kernels.ts";
import type { GemmEngine } from "../gemm/gemm.ts";
import { attention, attentionBackward } from "./attention.ts";
import { cast } from "./cast.ts";
import { copy } from "./copy.ts";
import { dropout } from "./dropout.ts";
import { affine, binary, fill, unary, unaryBackward, where } from "./elementwise.ts";
import { embedding, embeddingBackward } from "./embedding.ts";
import { float8Scale, fromFloat8, toFloat8 } from "./float8.ts";
import { gated, gatedBackward } from "./gated.ts";
import type { Heap } from "./heap.ts";
import { crossEntropy, crossEntropyBackward } from "./loss.ts";
import { matmul } from "./matmul.ts";
import { layerNorm, layerNormBackward } from "./norm.ts";
import { adamw, sgd } from "./optimizer.ts";
import { normPower, reduce } from "./reduce.ts";
import { rmsNorm, rmsNormBackward } from "./rms-norm.ts";
import { rotary } from "./rotary.ts";
import { plainScores } from "./scores.ts";
import { softmax, softmaxBackward } from "./softmax.ts";

/** Kernels that can also do a part of a tensor, where it is not the operands alone that say what is computed. */
export interface CpuKernels extends Kernels {
  /** As `Kernels.dropout`, from element `first` of the random stream on, a multiple of 4. */
  dropout(x: Span, out: Span, p: number, key: RandomKey, first?: number): void;
}

/** All kernels over a device's memory. */
export function plainKernels(heap: Heap, engine: GemmEngine): CpuKernels {
  const scores = plainScores(heap);
  return {
    fill: (out, value) => fill(heap, out, value),
    copy: (source, target, boxes, accumulate = false) => copy(heap, source, target, boxes, accumulate),
    cast: (source, target) => cast(heap, source, target),
    float8Scale: (amax, out, powerOfTwo) => float8Scale(heap, amax, out, powerOfTwo),
    toFloat8: (x, scale, out, columns) => toFloat8(heap, x, scale, out, columns),
    fromFloat8: (x, scale, out, columns) => fromFloat8(heap, x, scale, out, columns),
    unary: (op, x, out) => unary(heap, op, x, out),
    unaryBackward: (op, x, y, gradient, out) => unaryBackward(heap, op, x, y, gradient, out),
    affine: (x, out, scale, shift) => affine(heap, x, out, scale, shift),
    gated: (op, gate, x, out) => gated(heap, op, gate, x, out),
    gatedBackward: (args) => gatedBackward(heap, args),
    binary: (op, a, b, out, sizes) => binary(heap, op, a, b, out, sizes),
    where: (condition, a, b, out, sizes) => where(heap, condition, a, b, out, sizes),
    reduce: (op, x, out, outer, extent, inner, accumulate = false) =>
      reduce(heap, op, x, out, outer, extent, inner, accumulate),
    matmul: (args) => matmul(heap, engine, args),
    softmax: (x, out, rows, columns, log) => softmax(heap, x, out, rows, columns, log),
    softmaxBackward: (y, gradient, out, rows, columns, log) =>
      softmaxBackward(heap, y, gradient, out, rows, columns, log),
    layerNorm: (args) => layerNorm(heap, args),
    layerNormBackward: (args) => layerNormBackward(heap, args),
    rmsNorm: (args) => rmsNorm(heap, args),
    rmsNormBackward: (args) => rmsNormBackward(heap, args),
    rotary: (args) => rotary(heap, args),
    embedding: (table, indices, out, rows, columns) => embedding(heap, table, indices, out, rows, columns),
    embeddingBackward: (gradient, indices, dTable, rows, columns) =>
      embeddingBackward(heap, gradient, indices, dTable, rows, columns),
    crossEntropy: (logits, targets, losses, logSumExp, rows, columns) =>
      crossEntropy(heap, logits, targets, losses, logSumExp, rows, columns),
    crossEntropyBackward: (logits, targets, logSumExp, gradient, dLogits, rows, columns) =>
      crossEntropyBackward(heap, logits, targets, logSumExp, gradient, dLogits, rows, columns),
    attention: (args) => attention(heap, engine, scores, args),
    attentionBackward: (args) => attentionBackward(heap, engine, scores, args),
    dropout: (x, out, p, key, first = 0) => dropout(heap, x, out, p, key, first),
    normPower: (x, out, p) => normPower(heap, x, out, p),
    adamw: (args) => adamw(heap, args),
    sgd: (args) => sgd(heap, args),
  };
}

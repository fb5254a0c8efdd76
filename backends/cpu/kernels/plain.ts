/**
 * The reference kernels: every one in plain TypeScript, matrix products by the engine that is given.
 *
 * @module
 */
import type { Kernels } from "../../../core/contracts/kernels.ts";
import type { GemmEngine } from "../gemm/gemm.ts";
import { attention, attentionBackward } from "./attention.ts";
import { cast } from "./cast.ts";
import { copy } from "./copy.ts";
import { dropout } from "./dropout.ts";
import { affine, binary, fill, unary, unaryBackward, where } from "./elementwise.ts";
import { embedding, embeddingBackward } from "./embedding.ts";
import type { Heap } from "./heap.ts";
import { crossEntropy, crossEntropyBackward } from "./loss.ts";
import { matmul } from "./matmul.ts";
import { layerNorm, layerNormBackward } from "./norm.ts";
import { adamw, sgd } from "./optimizer.ts";
import { normPower, reduce } from "./reduce.ts";
import { plainScores } from "./scores.ts";
import { softmax, softmaxBackward } from "./softmax.ts";

/** All kernels over a device's memory. */
export function plainKernels(heap: Heap, engine: GemmEngine): Kernels {
  const scores = plainScores(heap);
  return {
    fill: (out, value) => fill(heap, out, value),
    copy: (source, target, boxes, accumulate = false) => copy(heap, source, target, boxes, accumulate),
    cast: (source, target) => cast(heap, source, target),
    unary: (op, x, out) => unary(heap, op, x, out),
    unaryBackward: (op, x, y, gradient, out) => unaryBackward(heap, op, x, y, gradient, out),
    affine: (x, out, scale, shift) => affine(heap, x, out, scale, shift),
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
    embedding: (table, indices, out, rows, columns) => embedding(heap, table, indices, out, rows, columns),
    embeddingBackward: (gradient, indices, dTable, rows, columns) =>
      embeddingBackward(heap, gradient, indices, dTable, rows, columns),
    crossEntropy: (logits, targets, losses, logSumExp, rows, columns) =>
      crossEntropy(heap, logits, targets, losses, logSumExp, rows, columns),
    crossEntropyBackward: (logits, targets, logSumExp, gradient, dLogits, rows, columns) =>
      crossEntropyBackward(heap, logits, targets, logSumExp, gradient, dLogits, rows, columns),
    attention: (args) => attention(heap, engine, scores, args),
    attentionBackward: (args) => attentionBackward(heap, engine, scores, args),
    dropout: (x, out, p, key) => dropout(heap, x, out, p, key),
    normPower: (x, out, p) => normPower(heap, x, out, p),
    adamw: (args) => adamw(heap, args),
    sgd: (args) => sgd(heap, args),
  };
}

/**
 * The kernels of the WebGPU backend.
 *
 * @module
 */
import type { Kernels } from "../../../core/contracts/kernels.ts";
import type { Gpu } from "../dispatch.ts";
import { attention, attentionBackward } from "./attention.ts";
import { cast } from "./cast.ts";
import { copy } from "./copy.ts";
import { dropout } from "./dropout.ts";
import { affine, binary, unary, unaryBackward, where } from "./elementwise.ts";
import { embedding, embeddingBackward } from "./embedding.ts";
import { fill } from "./fill.ts";
import { float8Scale, fromFloat8, toFloat8 } from "./float8.ts";
import { gated, gatedBackward } from "./gated.ts";
import { crossEntropy, crossEntropyBackward } from "./loss.ts";
import { matmul } from "./matmul.ts";
import { layerNorm, layerNormBackward, rmsNorm, rmsNormBackward } from "./norm.ts";
import { adamw, sgd } from "./optimizer.ts";
import { normPower, reduce } from "./reduce.ts";
import { rotary } from "./rotary.ts";
import { softmax, softmaxBackward } from "./softmax.ts";

/** All kernels over one device. */
export function webgpuKernels(gpu: Gpu): Kernels {
  return {
    fill: (...args) => fill(gpu, ...args),
    copy: (source, target, boxes, accumulate = false) => copy(gpu, source, target, boxes, accumulate),
    cast: (...args) => cast(gpu, ...args),
    float8Scale: (...args) => float8Scale(gpu, ...args),
    toFloat8: (...args) => toFloat8(gpu, ...args),
    fromFloat8: (...args) => fromFloat8(gpu, ...args),
    unary: (...args) => unary(gpu, ...args),
    unaryBackward: (...args) => unaryBackward(gpu, ...args),
    affine: (...args) => affine(gpu, ...args),
    gated: (...args) => gated(gpu, ...args),
    gatedBackward: (args) => gatedBackward(gpu, args),
    binary: (...args) => binary(gpu, ...args),
    where: (...args) => where(gpu, ...args),
    reduce: (op, x, out, outer, extent, inner, accumulate = false) =>
      reduce(gpu, op, x, out, outer, extent, inner, accumulate),
    matmul: (args) => matmul(gpu, args),
    softmax: (...args) => softmax(gpu, ...args),
    softmaxBackward: (...args) => softmaxBackward(gpu, ...args),
    layerNorm: (args) => layerNorm(gpu, args),
    layerNormBackward: (args) => layerNormBackward(gpu, args),
    rmsNorm: (args) => rmsNorm(gpu, args),
    rmsNormBackward: (args) => rmsNormBackward(gpu, args),
    rotary: (args) => rotary(gpu, args),
    embedding: (...args) => embedding(gpu, ...args),
    embeddingBackward: (...args) => embeddingBackward(gpu, ...args),
    crossEntropy: (...args) => crossEntropy(gpu, ...args),
    crossEntropyBackward: (...args) => crossEntropyBackward(gpu, ...args),
    attention: (args) => attention(gpu, args),
    attentionBackward: (args) => attentionBackward(gpu, args),
    dropout: (...args) => dropout(gpu, ...args),
    normPower: (...args) => normPower(gpu, ...args),
    adamw: (args) => adamw(gpu, args),
    sgd: (args) => sgd(gpu, args),
  };
}

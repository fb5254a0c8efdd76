/**
 * All tensor operations: what users import as `ops`.
 *
 * @module
 */
export { type AttentionOptions, packedAttention, scaledDotProductAttention } from "./attention.ts";
export { dropout } from "./dropout.ts";
export {
  abs,
  add,
  div,
  equal,
  exp,
  gelu,
  greater,
  less,
  log,
  maximum,
  minimum,
  mul,
  neg,
  pow,
  relu,
  sigmoid,
  silu,
  sqrt,
  sub,
  tanh,
  where,
} from "./elementwise.ts";
export { embedding } from "./embedding.ts";
export { type GateActivation, gated } from "./gated.ts";
export { cast, concat, expand, permute, reshape, slice, transpose } from "./layout.ts";
export { type LinearCrossEntropyOptions, linearCrossEntropy } from "./linear-cross-entropy.ts";
export { crossEntropy, type LossOptions, type LossReduction, mseLoss } from "./loss.ts";
export { type LinearOptions, linear, matmul } from "./matmul.ts";
export { layerNorm } from "./norm.ts";
export { max, mean, type ReduceOptions, sum } from "./reduce.ts";
export { rmsNorm } from "./rms-norm.ts";
export { rotary } from "./rotary.ts";
export { logSoftmax, softmax } from "./softmax.ts";

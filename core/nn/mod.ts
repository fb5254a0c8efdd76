/**
 * Modules, parameters, initialisers and layers: what users import as `nn`.
 *
 * @module
 */
export { GELU, ReLU, Sigmoid, SiLU, Tanh } from "./activation.ts";
export { checkpoint } from "./activation-checkpoint.ts";
export type { AllGatherContext, AllGatherExtension } from "./all-gather-extension.ts";
export { Conv1D } from "./conv1d.ts";
export { Dropout } from "./dropout.ts";
export { Embedding, type EmbeddingOptions } from "./embedding.ts";
export { constant, normal, uniform } from "./init.ts";
export { LayerNorm, type LayerNormOptions } from "./layer-norm.ts";
export type { LayerOptions } from "./layer-options.ts";
export { Linear } from "./linear.ts";
export { type AnyModule, type CallWrapper, Module } from "./module.ts";
export { type Initializer, type InitRequest, Parameter, type ParameterOptions } from "./parameter.ts";
export { RMSNorm, type RMSNormOptions } from "./rms-norm.ts";
export { RotaryEmbedding, rotaryFrequencies } from "./rotary-embedding.ts";
export { Sequential } from "./sequential.ts";

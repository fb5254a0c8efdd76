/**
 * LayerNorm: normalisation of the last dim with a learned scale and shift, as `torch.nn.LayerNorm`.
 *
 * @module
 */
import { layerNorm } from "../tensor/ops/norm.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { constant } from "./init.ts";
import type { LayerOptions } from "./layer-options.ts";
import { Module } from "./module.ts";
import { Parameter } from "./parameter.ts";

/** Options of a layer normalisation. */
export interface LayerNormOptions extends LayerOptions {
  /** Added to the variance; 1e-5 by default. */
  readonly eps?: number;
}

/** Normalises [..., features]. The weight begins as ones, the bias as zeros. */
export class LayerNorm extends Module<[Tensor], Tensor> {
  /** [features] */
  readonly weight: Parameter;
  /** [features] */
  readonly bias: Parameter | undefined;
  readonly eps: number;

  constructor(features: number, options: LayerNormOptions = {}) {
    super();
    this.weight = new Parameter([features], constant(1), options);
    this.bias = options.bias === false ? undefined : new Parameter([features], constant(0), options);
    this.eps = options.eps ?? 1e-5;
  }

  override forward(x: Tensor): Tensor {
    return layerNorm(x, this.weight, this.bias, this.eps);
  }
}

/**
 * RMSNorm: scaling of the last dim to a root mean square of one, with a learned weight, as `torch.nn.RMSNorm`.
 *
 * @module
 */
import { rmsNorm } from "../tensor/ops/rms-norm.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { constant } from "./init.ts";
import type { LayerOptions } from "./layer-options.ts";
import { Module } from "./module.ts";
import { Parameter } from "./parameter.ts";

/** Options of a root-mean-square normalisation. */
export interface RMSNormOptions extends Omit<LayerOptions, "bias"> {
  /** Added to the mean square; 1e-6 by default. */
  readonly eps?: number;
}

/** Normalises [..., features]. The weight begins as ones. */
export class RMSNorm extends Module<[Tensor], Tensor> {
  /** [features] */
  readonly weight: Parameter;
  readonly eps: number;

  constructor(features: number, options: RMSNormOptions = {}) {
    super();
    this.weight = new Parameter([features], constant(1), options);
    this.eps = options.eps ?? 1e-6;
  }

  override forward(x: Tensor): Tensor {
    return rmsNorm(x, this.weight, this.eps);
  }
}

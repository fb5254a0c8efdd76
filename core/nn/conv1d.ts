/**
 * Conv1D: the linear layer of GPT-2, as `transformers.pytorch_utils.Conv1D`. Its weight is the transpose of Linear's.
 *
 * @module
 */
import type { MatmulActivation } from "../contracts/kernels.ts";
import { linear } from "../tensor/ops/matmul.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { constant, normal } from "./init.ts";
import type { LayerOptions } from "./layer-options.ts";
import { Module } from "./module.ts";
import { Parameter } from "./parameter.ts";

/** `x @ weight + bias`: of [..., inFeatures] a [..., outFeatures]. The weight begins normal with deviation 0.02, the bias zero. A call may name an activation for the result. */
export class Conv1D extends Module<[x: Tensor, activation?: MatmulActivation], Tensor> {
  /** [inFeatures, outFeatures] */
  readonly weight: Parameter;
  /** [outFeatures] */
  readonly bias: Parameter | undefined;

  constructor(inFeatures: number, outFeatures: number, options: LayerOptions = {}) {
    super();
    this.weight = new Parameter([inFeatures, outFeatures], normal(0.02), options);
    this.bias = options.bias === false ? undefined : new Parameter([outFeatures], constant(0), options);
  }

  override forward(x: Tensor, activation?: MatmulActivation): Tensor {
    return linear(x, this.weight, this.bias, { weightInOut: true, activation });
  }
}

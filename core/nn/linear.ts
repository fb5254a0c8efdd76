/**
 * Linear: a learned affine map of the last dim, as `torch.nn.Linear`.
 *
 * @module
 */
import type { MatmulActivation } from "../contracts/kernels.ts";
import { linear } from "../tensor/ops/matmul.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { uniform } from "./init.ts";
import type { LayerOptions } from "./layer-options.ts";
import { Module } from "./module.ts";
import { Parameter } from "./parameter.ts";

/** `x @ weight^T + bias`: of [..., inFeatures] a [..., outFeatures]. Weight and bias begin uniform in ±1/sqrt(inFeatures). A call may name an activation for the result. */
export class Linear extends Module<[x: Tensor, activation?: MatmulActivation], Tensor> {
  /** [outFeatures, inFeatures] */
  readonly weight: Parameter;
  /** [outFeatures] */
  readonly bias: Parameter | undefined;

  constructor(inFeatures: number, outFeatures: number, options: LayerOptions = {}) {
    super();
    const initial = uniform(inFeatures === 0 ? 0 : 1 / Math.sqrt(inFeatures));
    this.weight = new Parameter([outFeatures, inFeatures], initial, options);
    this.bias = options.bias === false ? undefined : new Parameter([outFeatures], initial, options);
  }

  override forward(x: Tensor, activation?: MatmulActivation): Tensor {
    return linear(x, this.weight, this.bias, { activation });
  }
}

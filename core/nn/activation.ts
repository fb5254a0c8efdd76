/**
 * Activation functions as modules, for use in a Sequential.
 *
 * @module
 */
import { gelu, relu, sigmoid, silu, tanh } from "../tensor/ops/elementwise.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { Module } from "./module.ts";

/** max(x, 0). */
export class ReLU extends Module<[Tensor], Tensor> {
  override forward(x: Tensor): Tensor {
    return relu(x);
  }
}

/** Gaussian error linear unit; `"tanh"` is GPT-2's approximation. */
export class GELU extends Module<[Tensor], Tensor> {
  readonly approximate: "none" | "tanh";

  constructor(approximate: "none" | "tanh" = "none") {
    super();
    this.approximate = approximate;
  }

  override forward(x: Tensor): Tensor {
    return gelu(x, this.approximate);
  }
}

/** x * sigmoid(x). */
export class SiLU extends Module<[Tensor], Tensor> {
  override forward(x: Tensor): Tensor {
    return silu(x);
  }
}

/** Logistic function. */
export class Sigmoid extends Module<[Tensor], Tensor> {
  override forward(x: Tensor): Tensor {
    return sigmoid(x);
  }
}

/** Hyperbolic tangent. */
export class Tanh extends Module<[Tensor], Tensor> {
  override forward(x: Tensor): Tensor {
    return tanh(x);
  }
}

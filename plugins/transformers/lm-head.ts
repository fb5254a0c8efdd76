/**
 * The language model head: states to logits, or straight to the loss, so that the logits of all tokens need not exist.
 *
 * @module
 */
import { normal } from "../../core/nn/init.ts";
import { Module } from "../../core/nn/module.ts";
import { Parameter } from "../../core/nn/parameter.ts";
import * as ops from "../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../core/tensor/tensor.ts";

/**
 * Logits [batch, time, vocab] of `states` [batch, time, width] by `weight` [vocab, width]; with `targets` [batch, time],
 * the mean cross entropy instead.
 */
export function predict(weight: Tensor, states: Tensor, targets?: Tensor): Tensor {
  if (targets === undefined) return ops.linear(states, weight);
  const rows = targets.numel;
  return ops.linearCrossEntropy(ops.reshape(states, [rows, -1]), weight, ops.reshape(targets, [rows]));
}

/** An untied head. It is called like any module, so that it may be a unit of its own. */
export class LMHead extends Module<[states: Tensor, targets?: Tensor], Tensor> {
  /** [vocab, width] */
  readonly weight: Parameter;

  constructor(vocab: number, width: number, options: { readonly std: number }) {
    super();
    this.weight = new Parameter([vocab, width], normal(options.std));
  }

  override forward(states: Tensor, targets?: Tensor): Tensor {
    return predict(this.weight, states, targets);
  }
}

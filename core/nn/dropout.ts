/**
 * Dropout: acts in training mode only, as `torch.nn.Dropout`.
 *
 * @module
 */
import { ConfigError } from "../contracts/errors.ts";
import { dropout } from "../tensor/ops/dropout.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { Module } from "./module.ts";

/** Zeroes each element with probability `p` while training. */
export class Dropout extends Module<[Tensor], Tensor> {
  readonly p: number;

  /** @throws ConfigError unless `0 <= p <= 1`. */
  constructor(p = 0.5) {
    super();
    if (!(p >= 0 && p <= 1)) throw new ConfigError(`Making a Dropout failed: p = ${p}, allowed are 0 to 1`);
    this.p = p;
  }

  override forward(x: Tensor): Tensor {
    return dropout(x, this.p, this.training);
  }
}

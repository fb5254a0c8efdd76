/**
 * GPT-2's causal self-attention.
 *
 * @module
 */

import { Conv1D, Dropout } from "../../../core/nn/mod.ts";
import { Module } from "../../../core/nn/module.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import type { GPT2Config } from "./config.ts";

/** Multi-head causal self-attention over [batch, time, embd]. */
export class GPT2Attention extends Module<[x: Tensor], Tensor> {
  readonly c_attn: Conv1D;
  readonly c_proj: Conv1D;
  readonly resid_dropout: Dropout;
  readonly #heads: number;
  readonly #scale: number;
  readonly #dropout: number;

  constructor(config: GPT2Config, layer: number) {
    super();
    this.c_attn = new Conv1D(config.n_embd, 3 * config.n_embd);
    this.c_proj = new Conv1D(config.n_embd, config.n_embd);
    this.resid_dropout = new Dropout(config.resid_pdrop);
    this.#heads = config.n_head;
    const byWidth = config.scale_attn_weights ? 1 / Math.sqrt(config.n_embd / config.n_head) : 1;
    this.#scale = config.scale_attn_by_inverse_layer_idx ? byWidth / (layer + 1) : byWidth;
    this.#dropout = config.attn_pdrop;
  }

  override async forward(x: Tensor): Promise<Tensor> {
    const qkv = await this.c_attn.call(x);
    const mixed =
      this.training && this.#dropout > 0
        ? this.#withDropout(qkv)
        : ops.packedAttention(qkv, this.#heads, { causal: true, scale: this.#scale });
    return await this.resid_dropout.call(await this.c_proj.call(mixed));
  }

  /** The same from single operations, because dropout acts on the probabilities, which the fused kernel never holds. */
  #withDropout(qkv: Tensor): Tensor {
    const [batch, time, width] = qkv.shape as [number, number, number];
    const split = ops.reshape(qkv, [batch, time, 3, this.#heads, width / 3 / this.#heads]);
    const [query, key, value] = [0, 1, 2].map((i) => {
      const part = ops.slice(split, 2, i, i + 1);
      return ops.permute(ops.reshape(part, [batch, time, this.#heads, -1]), [0, 2, 1, 3]);
    }) as [Tensor, Tensor, Tensor];
    const scores = ops.mul(ops.matmul(query, ops.transpose(key, -1, -2)), this.#scale);
    const rows = ops.reshape(qkv.device.arange(time), [time, 1]);
    const columns = qkv.device.arange(time);
    const masked = ops.where(ops.greater(columns, rows), qkv.device.full([], -Infinity), scores);
    const probabilities = ops.dropout(ops.softmax(masked), this.#dropout);
    return ops.reshape(ops.permute(ops.matmul(probabilities, value), [0, 2, 1, 3]), [batch, time, -1]);
  }
}

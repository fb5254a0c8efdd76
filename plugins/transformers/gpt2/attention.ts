/**
 * GPT-2's causal self-attention.
 *
 * @module
 */

import { Conv1D, Dropout } from "../../../core/nn/mod.ts";
import { Module } from "../../../core/nn/module.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { attentionWithDropout } from "../attention-dropout.ts";
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

  #withDropout(qkv: Tensor): Tensor {
    const [batch, time, packed] = qkv.shape as [number, number, number];
    const width = packed / 3;
    const [query, key, value] = [0, 1, 2].map((part) => {
      const own = ops.slice(qkv, -1, part * width, (part + 1) * width);
      return ops.reshape(own, [batch, time, this.#heads, -1]);
    }) as [Tensor, Tensor, Tensor];
    const mixed = attentionWithDropout(query, key, value, { scale: this.#scale, p: this.#dropout });
    return ops.reshape(mixed, [batch, time, width]);
  }
}

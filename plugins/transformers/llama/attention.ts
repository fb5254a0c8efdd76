/**
 * Llama's causal self-attention: rotary positions, and key heads that neighbouring query heads share.
 *
 * @module
 */
import { Linear, type RotaryEmbedding } from "../../../core/nn/mod.ts";
import { Module } from "../../../core/nn/module.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { attentionWithDropout } from "../attention-dropout.ts";
import type { LlamaConfig } from "./config.ts";

/** Grouped-query causal self-attention over [batch, time, hidden]. */
export class LlamaAttention extends Module<[x: Tensor], Tensor> {
  readonly q_proj: Linear;
  readonly k_proj: Linear;
  readonly v_proj: Linear;
  readonly o_proj: Linear;
  readonly #rotary: RotaryEmbedding;
  readonly #headDim: number;
  readonly #dropout: number;

  /** @param rotary belongs to the model: its angles serve all layers. */
  constructor(config: LlamaConfig, rotary: RotaryEmbedding) {
    super();
    const { hidden_size, num_attention_heads, num_key_value_heads, head_dim, attention_bias: bias } = config;
    this.q_proj = new Linear(hidden_size, num_attention_heads * head_dim, { bias });
    this.k_proj = new Linear(hidden_size, num_key_value_heads * head_dim, { bias });
    this.v_proj = new Linear(hidden_size, num_key_value_heads * head_dim, { bias });
    this.o_proj = new Linear(num_attention_heads * head_dim, hidden_size, { bias });
    this.#rotary = rotary;
    this.#headDim = head_dim;
    this.#dropout = config.attention_dropout;
  }

  override async forward(x: Tensor): Promise<Tensor> {
    const query = await this.#rotary.call(this.#heads(await this.q_proj.call(x)));
    const key = await this.#rotary.call(this.#heads(await this.k_proj.call(x)));
    const value = this.#heads(await this.v_proj.call(x));
    const scale = 1 / Math.sqrt(this.#headDim);
    const mixed =
      this.training && this.#dropout > 0
        ? attentionWithDropout(query, key, value, { scale, p: this.#dropout })
        : ops.scaledDotProductAttention(query, key, value, { causal: true, scale });
    const [batch, time] = x.shape as [number, number];
    return await this.o_proj.call(ops.reshape(mixed, [batch, time, -1]));
  }

  /** [batch, time, heads * dim] as [batch, time, heads, dim]. */
  #heads(x: Tensor): Tensor {
    return ops.reshape(x, [x.shape[0]!, x.shape[1]!, -1, this.#headDim]);
  }
}

/**
 * Llama (Touvron et al. 2023) as Hugging Face's `LlamaForCausalLM`: the same modules under the same names, so that weights
 * come and go without a map.
 *
 * @module
 */
import { ShapeError } from "../../../core/contracts/errors.ts";
import { constant, Embedding, Linear, normal, RMSNorm, RotaryEmbedding } from "../../../core/nn/mod.ts";
import { Module } from "../../../core/nn/module.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import { showShape } from "../../../core/tensor/shape.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { LMHead, predict } from "../lm-head.ts";
import { LlamaAttention } from "./attention.ts";
import type { LlamaConfig } from "./config.ts";
import { ropeFrequencies } from "./rope.ts";

const ACTIVATIONS: Readonly<Record<LlamaConfig["hidden_act"], ops.GateActivation>> = {
  silu: "silu",
  gelu: "gelu",
  gelu_new: "geluTanh",
  gelu_pytorch_tanh: "geluTanh",
  relu: "relu",
};

/** The feed-forward part of a layer: SwiGLU, unless the config names another activation. */
export class LlamaMLP extends Module<[x: Tensor], Tensor> {
  readonly gate_proj: Linear;
  readonly up_proj: Linear;
  readonly down_proj: Linear;
  readonly #activation: ops.GateActivation;

  constructor(config: LlamaConfig) {
    super();
    const { hidden_size, intermediate_size, mlp_bias: bias } = config;
    this.gate_proj = new Linear(hidden_size, intermediate_size, { bias });
    this.up_proj = new Linear(hidden_size, intermediate_size, { bias });
    this.down_proj = new Linear(intermediate_size, hidden_size, { bias });
    this.#activation = ACTIVATIONS[config.hidden_act];
  }

  override async forward(x: Tensor): Promise<Tensor> {
    const gate = await this.gate_proj.call(x);
    return await this.down_proj.call(ops.gated(gate, await this.up_proj.call(x), this.#activation));
  }
}

/** RMSNorm by Hugging Face's name: wrap policies find modules by class. */
export class LlamaRMSNorm extends RMSNorm {
  constructor(config: LlamaConfig) {
    super(config.hidden_size, { eps: config.rms_norm_eps });
  }
}

/** The model's rotary positions, by Hugging Face's name. */
export class LlamaRotaryEmbedding extends RotaryEmbedding {
  constructor(config: LlamaConfig) {
    super(ropeFrequencies(config.head_dim, config.rope_parameters));
  }
}

/** One transformer layer: the natural unit to shard. */
export class LlamaDecoderLayer extends Module<[x: Tensor], Tensor> {
  readonly self_attn: LlamaAttention;
  readonly mlp: LlamaMLP;
  readonly input_layernorm: LlamaRMSNorm;
  readonly post_attention_layernorm: LlamaRMSNorm;

  constructor(config: LlamaConfig, rotary: RotaryEmbedding) {
    super();
    this.self_attn = new LlamaAttention(config, rotary);
    this.mlp = new LlamaMLP(config);
    this.input_layernorm = new LlamaRMSNorm(config);
    this.post_attention_layernorm = new LlamaRMSNorm(config);
  }

  override async forward(x: Tensor): Promise<Tensor> {
    const attended = ops.add(x, await this.self_attn.call(await this.input_layernorm.call(x)));
    return ops.add(attended, await this.mlp.call(await this.post_attention_layernorm.call(attended)));
  }
}

/** Embeddings, layers and the final norm: token ids [batch, time] to states [batch, time, hidden]. */
export class LlamaModel extends Module<[ids: Tensor], Tensor> {
  readonly embed_tokens: Embedding;
  readonly layers: readonly LlamaDecoderLayer[];
  readonly norm: LlamaRMSNorm;
  readonly rotary_emb: LlamaRotaryEmbedding;

  constructor(config: LlamaConfig) {
    super();
    this.rotary_emb = new LlamaRotaryEmbedding(config);
    this.embed_tokens = new Embedding(config.vocab_size, config.hidden_size);
    this.layers = Array.from(
      { length: config.num_hidden_layers },
      () => new LlamaDecoderLayer(config, this.rotary_emb),
    );
    this.norm = new LlamaRMSNorm(config);
  }

  override async forward(ids: Tensor): Promise<Tensor> {
    let x = await this.embed_tokens.call(ids);
    for (const layer of this.layers) x = await layer.call(x);
    return await this.norm.call(x);
  }
}

/** Llama with its language model head, tied to the token embedding when the config says so. */
export class LlamaForCausalLM extends Module<[ids: Tensor, targets?: Tensor], Tensor> {
  readonly config: LlamaConfig;
  readonly model: LlamaModel;
  /** Present when not tied: `weight` [vocab, hidden]. */
  readonly lm_head: LMHead | undefined;

  constructor(config: LlamaConfig) {
    super();
    this.config = config;
    this.model = new LlamaModel(config);
    this.lm_head = config.tie_word_embeddings
      ? undefined
      : new LMHead(config.vocab_size, config.hidden_size, { std: config.initializer_range });
    initialize(this, config);
  }

  /** Logits [batch, time, vocab]; with `targets` [batch, time], the mean cross entropy instead. @throws ShapeError for a sequence that is too long. */
  override async forward(ids: Tensor, targets?: Tensor): Promise<Tensor> {
    const [, time] = ids.shape;
    if (ids.shape.length !== 2 || time! > this.config.max_position_embeddings) {
      throw new ShapeError(
        `Llama failed: token ids of shape ${showShape(ids.shape)}, allowed are [batch, time] with time up to ${this.config.max_position_embeddings}`,
      );
    }
    const states = await this.model.call(ids);
    if (this.lm_head !== undefined) return await this.lm_head.call(states, targets);
    return predict(this.model.embed_tokens.weight, states, targets);
  }
}

/** Hugging Face's initial weights: normal matrices, biases of zero, norms of one. */
function initialize(model: LlamaForCausalLM, config: LlamaConfig): void {
  for (const [name, parameter] of model.namedParameters()) {
    if (name.endsWith(".bias")) parameter.initializer = constant(0);
    else if (parameter.shape.length === 2) parameter.initializer = normal(config.initializer_range);
  }
}

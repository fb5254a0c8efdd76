/**
 * GPT-2 (Radford et al. 2019) as Hugging Face's `GPT2LMHeadModel`: the same modules under the same names, so that
 * weights come and go without a map.
 *
 * @module
 */
import { ShapeError } from "../../../core/contracts/errors.ts";
import type { MatmulActivation } from "../../../core/contracts/kernels.ts";
import { normal } from "../../../core/nn/init.ts";
import { Conv1D, Dropout, Embedding, LayerNorm } from "../../../core/nn/mod.ts";
import { Module } from "../../../core/nn/module.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import { showShape } from "../../../core/tensor/shape.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { LMHead, predict } from "../lm-head.ts";
import { GPT2Attention } from "./attention.ts";
import type { GPT2Config } from "./config.ts";

/** The feed-forward part of a block. */
export class GPT2MLP extends Module<[x: Tensor], Tensor> {
  readonly c_fc: Conv1D;
  readonly c_proj: Conv1D;
  readonly dropout: Dropout;
  readonly #activation: MatmulActivation;

  constructor(config: GPT2Config) {
    super();
    const inner = config.n_inner ?? 4 * config.n_embd;
    this.c_fc = new Conv1D(config.n_embd, inner);
    this.c_proj = new Conv1D(inner, config.n_embd);
    this.dropout = new Dropout(config.resid_pdrop);
    this.#activation = ACTIVATIONS[config.activation_function];
  }

  override async forward(x: Tensor): Promise<Tensor> {
    const hidden = await this.c_fc.call(x, this.#activation);
    return await this.dropout.call(await this.c_proj.call(hidden));
  }
}

const ACTIVATIONS: Readonly<Record<GPT2Config["activation_function"], MatmulActivation>> = {
  gelu_new: "geluTanh",
  gelu_pytorch_tanh: "geluTanh",
  gelu: "gelu",
  relu: "relu",
  silu: "silu",
};

/** One transformer block: the natural unit to shard. */
export class GPT2Block extends Module<[x: Tensor], Tensor> {
  readonly ln_1: LayerNorm;
  readonly attn: GPT2Attention;
  readonly ln_2: LayerNorm;
  readonly mlp: GPT2MLP;

  constructor(config: GPT2Config, layer: number) {
    super();
    this.ln_1 = new LayerNorm(config.n_embd, { eps: config.layer_norm_epsilon });
    this.attn = new GPT2Attention(config, layer);
    this.ln_2 = new LayerNorm(config.n_embd, { eps: config.layer_norm_epsilon });
    this.mlp = new GPT2MLP(config);
  }

  override async forward(x: Tensor): Promise<Tensor> {
    const attended = ops.add(x, await this.attn.call(await this.ln_1.call(x)));
    return ops.add(attended, await this.mlp.call(await this.ln_2.call(attended)));
  }
}

/** Embeddings, blocks and the final norm: token ids [batch, time] to states [batch, time, embd]. */
export class GPT2Model extends Module<[ids: Tensor], Tensor> {
  readonly wte: Embedding;
  readonly wpe: Embedding;
  readonly drop: Dropout;
  readonly h: readonly GPT2Block[];
  readonly ln_f: LayerNorm;

  constructor(config: GPT2Config) {
    super();
    this.wte = new Embedding(config.vocab_size, config.n_embd);
    this.wpe = new Embedding(config.n_positions, config.n_embd);
    this.drop = new Dropout(config.embd_pdrop);
    this.h = Array.from({ length: config.n_layer }, (_, layer) => new GPT2Block(config, layer));
    this.ln_f = new LayerNorm(config.n_embd, { eps: config.layer_norm_epsilon });
  }

  override async forward(ids: Tensor): Promise<Tensor> {
    const [, time] = ids.shape;
    const positions = ids.device.arange(time!, { dtype: "int32" });
    const embedded = ops.add(await this.wte.call(ids), await this.wpe.call(positions));
    let x = await this.drop.call(embedded);
    for (const block of this.h) x = await block.call(x);
    return await this.ln_f.call(x);
  }
}

/** GPT-2 with its language model head, tied to the token embedding unless the config says otherwise. */
export class GPT2LMHeadModel extends Module<[ids: Tensor, targets?: Tensor], Tensor> {
  readonly config: GPT2Config;
  readonly transformer: GPT2Model;
  /** Present when not tied: `weight` [vocab, embd]. */
  readonly lm_head: LMHead | undefined;

  constructor(config: GPT2Config) {
    super();
    this.config = config;
    this.transformer = new GPT2Model(config);
    this.lm_head = config.tie_word_embeddings
      ? undefined
      : new LMHead(config.vocab_size, config.n_embd, { std: config.initializer_range });
    initialize(this, config);
  }

  /** Logits [batch, time, vocab]; with `targets` [batch, time], the mean cross entropy instead. @throws ShapeError for a sequence that is too long. */
  override async forward(ids: Tensor, targets?: Tensor): Promise<Tensor> {
    const [, time] = ids.shape;
    if (ids.shape.length !== 2 || time! > this.config.n_positions) {
      throw new ShapeError(
        `GPT-2 failed: token ids of shape ${showShape(ids.shape)}, allowed are [batch, time] with time up to ${this.config.n_positions}`,
      );
    }
    const states = await this.transformer.call(ids);
    if (this.lm_head !== undefined) return await this.lm_head.call(states, targets);
    return predict(this.transformer.wte.weight, states, targets);
  }
}

/** GPT-2's initial weights: normal, the projections back into the residual stream scaled down by depth. */
function initialize(model: GPT2LMHeadModel, config: GPT2Config): void {
  const std = config.initializer_range;
  for (const [name, parameter] of model.namedParameters()) {
    if (!name.endsWith(".weight") || /\.ln_[12f]\.weight$/.test(name)) continue;
    parameter.initializer = normal(
      name.endsWith(".c_proj.weight") ? std / Math.sqrt(2 * config.n_layer) : std,
    );
  }
}

/**
 * GPT-2's configuration: what a Hugging Face `config.json` of `model_type` "gpt2" says, checked.
 *
 * @module
 */
import * as v from "valibot";
import { ConfigError } from "../../../core/contracts/errors.ts";

const size = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
const probability = v.pipe(v.number(), v.minValue(0), v.maxValue(1));

/** A checked configuration, with Hugging Face's names and defaults. Fields that do not change the model pass unread. */
export interface GPT2Config {
  readonly model_type: "gpt2";
  readonly vocab_size: number;
  readonly n_positions: number;
  readonly n_embd: number;
  readonly n_layer: number;
  readonly n_head: number;
  /** Width of the feed-forward part; `null`: four times `n_embd`. */
  readonly n_inner: number | null;
  readonly activation_function: "gelu_new" | "gelu_pytorch_tanh" | "gelu" | "relu" | "silu";
  readonly layer_norm_epsilon: number;
  readonly initializer_range: number;
  readonly embd_pdrop: number;
  readonly resid_pdrop: number;
  readonly attn_pdrop: number;
  readonly tie_word_embeddings: boolean;
  readonly scale_attn_weights: boolean;
  readonly scale_attn_by_inverse_layer_idx: boolean;
  readonly add_cross_attention: false;
}

const schema: v.GenericSchema<unknown, GPT2Config> = v.looseObject({
  model_type: v.optional(v.literal("gpt2"), "gpt2"),
  vocab_size: v.optional(size, 50257),
  n_positions: v.optional(size, 1024),
  n_embd: v.optional(size, 768),
  n_layer: v.optional(size, 12),
  n_head: v.optional(size, 12),
  n_inner: v.optional(v.nullable(size), null),
  activation_function: v.optional(
    v.picklist(["gelu_new", "gelu_pytorch_tanh", "gelu", "relu", "silu"]),
    "gelu_new",
  ),
  layer_norm_epsilon: v.optional(v.pipe(v.number(), v.gtValue(0)), 1e-5),
  initializer_range: v.optional(v.pipe(v.number(), v.gtValue(0)), 0.02),
  embd_pdrop: v.optional(probability, 0.1),
  resid_pdrop: v.optional(probability, 0.1),
  attn_pdrop: v.optional(probability, 0.1),
  tie_word_embeddings: v.optional(v.boolean(), true),
  scale_attn_weights: v.optional(v.boolean(), true),
  scale_attn_by_inverse_layer_idx: v.optional(v.boolean(), false),
  add_cross_attention: v.optional(v.literal(false), false),
});

/** Checks a `config.json`. @throws ConfigError that names the field, what was given and what is allowed. */
export function parseGPT2Config(config: unknown): GPT2Config {
  const result = v.safeParse(schema, config);
  if (!result.success) {
    const issue = result.issues[0];
    throw new ConfigError(
      `GPT-2 config failed: "${v.getDotPath(issue) ?? ""}" is ${issue.received}, allowed is ${issue.expected ?? "an object"}`,
    );
  }
  const { n_embd, n_head } = result.output;
  if (n_embd % n_head !== 0) {
    throw new ConfigError(
      `GPT-2 config failed: "n_head" is ${n_head}, it must divide "n_embd", which is ${n_embd}`,
    );
  }
  return result.output;
}

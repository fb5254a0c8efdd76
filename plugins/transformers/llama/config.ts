/**
 * Llama's configuration: what a Hugging Face `config.json` of `model_type` "llama" says, checked.
 *
 * @module
 */
import * as v from "valibot";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { type RopeParameters, ropeOf } from "./rope.ts";

const size = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
const positive = v.pipe(v.number(), v.finite(), v.gtValue(0));
const probability = v.pipe(v.number(), v.minValue(0), v.maxValue(1));

/** A checked configuration, with Hugging Face's names and defaults. Fields that do not change the model pass unread. */
export interface LlamaConfig {
  readonly model_type: "llama";
  readonly vocab_size: number;
  readonly max_position_embeddings: number;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  /** Heads of keys and values, each shared by neighbouring query heads. */
  readonly num_key_value_heads: number;
  readonly head_dim: number;
  readonly hidden_act: "silu" | "gelu" | "gelu_new" | "gelu_pytorch_tanh" | "relu";
  readonly initializer_range: number;
  readonly rms_norm_eps: number;
  readonly attention_bias: boolean;
  readonly attention_dropout: number;
  readonly mlp_bias: boolean;
  readonly tie_word_embeddings: boolean;
  /** Also read from `rope_theta` and `rope_scaling`, where versions of transformers before 5 keep them. */
  readonly rope_parameters: RopeParameters;
}

const schema = v.looseObject({
  model_type: v.optional(v.literal("llama"), "llama"),
  vocab_size: v.optional(size, 32_000),
  max_position_embeddings: v.optional(size, 2048),
  hidden_size: v.optional(size, 4096),
  intermediate_size: v.optional(size, 11_008),
  num_hidden_layers: v.optional(size, 32),
  num_attention_heads: v.optional(size, 32),
  num_key_value_heads: v.optional(v.nullable(size)),
  head_dim: v.optional(v.nullable(size)),
  hidden_act: v.optional(v.picklist(["silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]), "silu"),
  initializer_range: v.optional(positive, 0.02),
  rms_norm_eps: v.optional(positive, 1e-6),
  attention_bias: v.optional(v.boolean(), false),
  attention_dropout: v.optional(probability, 0),
  mlp_bias: v.optional(v.boolean(), false),
  tie_word_embeddings: v.optional(v.boolean(), false),
  // Splits of products that change rounding only; nobody writes another one any more.
  pretraining_tp: v.optional(v.literal(1), 1),
});

function fail(field: string, given: unknown, allowed: string): never {
  throw new ConfigError(`Llama config failed: "${field}" is ${given}, ${allowed}`);
}

/** Checks a `config.json`. @throws ConfigError that names the field, what was given and what is allowed. */
export function parseLlamaConfig(config: unknown): LlamaConfig {
  const result = v.safeParse(schema, config);
  if (!result.success) {
    const issue = result.issues[0];
    fail(v.getDotPath(issue) ?? "", issue.received, `allowed is ${issue.expected ?? "an object"}`);
  }
  const given = result.output;
  const { hidden_size, num_attention_heads } = given;
  const num_key_value_heads = given.num_key_value_heads ?? num_attention_heads;
  if (num_attention_heads % num_key_value_heads !== 0) {
    const allowed = `it must divide "num_attention_heads", which is ${num_attention_heads}`;
    fail("num_key_value_heads", num_key_value_heads, allowed);
  }
  if (given.head_dim == null && hidden_size % num_attention_heads !== 0) {
    const allowed = `it must divide "hidden_size", which is ${hidden_size}, unless "head_dim" is given`;
    fail("num_attention_heads", num_attention_heads, allowed);
  }
  const head_dim = given.head_dim ?? hidden_size / num_attention_heads;
  if (head_dim % 2 !== 0) fail("head_dim", head_dim, "rotary positions need an even one");
  return { ...given, num_key_value_heads, head_dim, rope_parameters: ropeOf(given) };
}

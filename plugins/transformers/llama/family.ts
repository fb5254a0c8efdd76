/**
 * Llama as a registered model family.
 *
 * @module
 */
import type { ModelFamily } from "../../../core/runtime/model-family.ts";
import { takeWeights } from "../load-weights.ts";
import { parseLlamaConfig } from "./config.ts";
import { LlamaForCausalLM } from "./model.ts";

const llama3 = {
  vocab_size: 128_256,
  max_position_embeddings: 131_072,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  rms_norm_eps: 1e-5,
  rope_theta: 500_000,
};

/** Llama 3's stretched positions. */
const stretched = (factor: number) => ({
  rope_scaling: {
    rope_type: "llama3",
    factor,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  },
});

/** `model_type` "llama". */
export const llamaFamily: ModelFamily = Object.freeze({
  presets: {
    /** About as large as "gpt2-bytes". */
    "llama-bytes": {
      vocab_size: 256,
      max_position_embeddings: 128,
      hidden_size: 128,
      intermediate_size: 352,
      num_hidden_layers: 4,
      num_attention_heads: 4,
      num_key_value_heads: 2,
    },
    "tinyllama-1.1b": {
      hidden_size: 2048,
      intermediate_size: 5632,
      num_hidden_layers: 22,
      num_key_value_heads: 4,
      rms_norm_eps: 1e-5,
    },
    "llama-2-7b": { max_position_embeddings: 4096, rms_norm_eps: 1e-5 },
    "llama-3.2-1b": {
      ...llama3,
      ...stretched(32),
      hidden_size: 2048,
      intermediate_size: 8192,
      num_hidden_layers: 16,
      tie_word_embeddings: true,
    },
    "llama-3.1-8b": { ...llama3, ...stretched(8), intermediate_size: 14_336 },
  },
  create(config, weights) {
    const checked = parseLlamaConfig(config);
    const module = new LlamaForCausalLM(checked);
    // Files of the model without its head leave the prefix out.
    if (weights !== undefined) takeWeights(module, weights, (name) => [name, name.replace(/^model\./, "")]);
    return {
      module,
      vocabSize: checked.vocab_size,
      contextLength: checked.max_position_embeddings,
      blockClasses: ["LlamaDecoderLayer"],
      rootModules: [module.lm_head ?? module.model.embed_tokens],
      config: { architectures: ["LlamaForCausalLM"], ...checked },
    };
  },
} satisfies ModelFamily);

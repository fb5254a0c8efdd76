/**
 * GPT-2 as a registered model family.
 *
 * @module
 */
import type { ModelFamily } from "../../../core/runtime/model-family.ts";
import { takeWeights } from "../load-weights.ts";
import { parseGPT2Config } from "./config.ts";
import { GPT2LMHeadModel } from "./model.ts";

const noDropout = { embd_pdrop: 0, resid_pdrop: 0, attn_pdrop: 0 };

/** `model_type` "gpt2". */
export const gpt2Family: ModelFamily = Object.freeze({
  presets: {
    /** The demo's: learns bytes of source text in minutes on a laptop. */
    "gpt2-bytes": { vocab_size: 256, n_positions: 128, n_embd: 128, n_layer: 4, n_head: 4, ...noDropout },
    /** The benchmark's: 3.26 million parameters. */
    "gpt2-3m": { vocab_size: 256, n_positions: 128, n_embd: 256, n_layer: 4, n_head: 4, ...noDropout },
    gpt2: {},
    "gpt2-medium": { n_embd: 1024, n_layer: 24, n_head: 16 },
    "gpt2-large": { n_embd: 1280, n_layer: 36, n_head: 20 },
    "gpt2-xl": { n_embd: 1600, n_layer: 48, n_head: 25 },
  },
  create(config, weights) {
    const checked = parseGPT2Config(config);
    const module = new GPT2LMHeadModel(checked);
    // OpenAI's own files leave the prefix out.
    if (weights !== undefined)
      takeWeights(module, weights, (name) => [name, name.replace(/^transformer\./, "")]);
    return {
      module,
      vocabSize: checked.vocab_size,
      contextLength: checked.n_positions,
      blockClasses: ["GPT2Block"],
      rootModules: [module.lm_head ?? module.transformer.wte],
      config: { architectures: ["GPT2LMHeadModel"], ...checked },
    };
  },
} satisfies ModelFamily);

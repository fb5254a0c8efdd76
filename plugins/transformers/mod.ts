/**
 * Model families of Hugging Face's transformers, from `config.json` and safetensors.
 *
 * @module
 */
import type { Plugin } from "../../core/contracts/plugin.ts";
import { MODEL, type ModelFamily } from "../../core/runtime/model-family.ts";
import { parseGPT2Config } from "./gpt2/config.ts";
import { GPT2LMHeadModel } from "./gpt2/model.ts";
import { takeWeights } from "./load-weights.ts";

export { type GPT2Config, parseGPT2Config } from "./gpt2/config.ts";
export { GPT2LMHeadModel } from "./gpt2/model.ts";

const noDropout = { embd_pdrop: 0, resid_pdrop: 0, attn_pdrop: 0 };

const gpt2: ModelFamily = {
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
      config: { architectures: ["GPT2LMHeadModel"], ...checked },
    };
  },
};

/** Registers the model families. */
export const transformersPlugin: Plugin = Object.freeze({
  name: "transformers",
  setup(registry) {
    registry.register(MODEL, "gpt2", gpt2);
  },
} satisfies Plugin);

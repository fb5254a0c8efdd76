/**
 * Model families of Hugging Face's transformers, from `config.json` and safetensors.
 *
 * @module
 */
import type { Plugin } from "../../core/contracts/plugin.ts";
import { MODEL } from "../../core/runtime/model-family.ts";
import { gpt2Family } from "./gpt2/family.ts";
import { llamaFamily } from "./llama/family.ts";

export { type GPT2Config, parseGPT2Config } from "./gpt2/config.ts";
export { GPT2LMHeadModel } from "./gpt2/model.ts";
export { type LlamaConfig, parseLlamaConfig } from "./llama/config.ts";
export { LlamaForCausalLM } from "./llama/model.ts";
export type { RopeParameters } from "./llama/rope.ts";

/** Registers the model families. */
export const transformersPlugin: Plugin = Object.freeze({
  name: "transformers",
  setup(registry) {
    registry.register(MODEL, "gpt2", gpt2Family);
    registry.register(MODEL, "llama", llamaFamily);
  },
} satisfies Plugin);

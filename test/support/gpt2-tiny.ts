/** PyTorch's reference run of gpt2-tiny, and the options that repeat it. */
import { parseGPT2Config } from "../../plugins/transformers/mod.ts";
import { type TinyModel, tinyModel } from "./tiny-model.ts";

export type { Reference } from "./tiny-model.ts";

const model = tinyModel("gpt2-tiny");

/** A JSON file of the fixture. */
export const gpt2TinyJson: TinyModel["json"] = model.json;

/** Options of `train` that repeat the reference run. */
export const GPT2_TINY_OPTIONS: readonly string[] = model.options;

/** Its model's configuration. */
export const GPT2_TINY_CONFIG: ReturnType<typeof parseGPT2Config> = parseGPT2Config(
  gpt2TinyJson("model/config.json"),
);

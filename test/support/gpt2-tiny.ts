/** PyTorch's reference run of gpt2-tiny, and the options that repeat it. */
import { readFileSync } from "node:fs";
import { parseGPT2Config } from "../../plugins/transformers/mod.ts";
import { fixture } from "./command.ts";

/** Losses and gradient norms of a reference run. */
export interface Reference {
  readonly losses: readonly number[];
  readonly grad_norms: readonly number[];
}

/** A JSON file of the fixture. */
export function gpt2TinyJson<T>(name: string): T {
  return JSON.parse(readFileSync(fixture(`gpt2-tiny/${name}`), "utf8")) as T;
}

/** The run's settings as PyTorch had them. */
const settings = gpt2TinyJson<{ lr: number; wd: number; betas: [number, number]; clip: number }>("case.json");

/** Options of `train` that repeat the reference run. */
export const GPT2_TINY_OPTIONS: readonly string[] = [
  ["--model", fixture("gpt2-tiny/model")],
  ["--tokens", fixture("gpt2-tiny/tokens.safetensors")],
  ["--lr", settings.lr],
  ["--weight-decay", settings.wd],
  ["--beta1", settings.betas[0]],
  ["--beta2", settings.betas[1]],
  ["--clip", settings.clip],
]
  .map(String)
  .flatMap((pair) => pair.split(","));

/** Its model's configuration. */
export const GPT2_TINY_CONFIG: ReturnType<typeof parseGPT2Config> = parseGPT2Config(
  gpt2TinyJson("model/config.json"),
);

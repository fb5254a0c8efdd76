/**
 * The command `generate`.
 *
 * @module
 */
import type { CommandContext, CommandSpec, OptionSpec } from "../../core/contracts/command.ts";
import { ConfigError } from "../../core/contracts/errors.ts";
import type { Registry } from "../../core/contracts/plugin.ts";
import { findCheckpoint } from "../../core/runtime/checkpoint-place.ts";
import { readRunConfig, runOptions } from "../../core/runtime/run-config.ts";
import { list, modelFromDirectory, number, text } from "./config.ts";
import type { GenerateConfig, GenerateMessage } from "./generate-rank.ts";
import { superviseRanks } from "./supervise.ts";

const GENERATE_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  checkpoint: { type: "string", placeholder: "PATH", description: "a run's checkpoints, or one of them" },
  model: { type: "string", placeholder: "DIR", description: "Hugging Face directory" },
  prompt: { type: "string", description: "text to go on from, for a model of bytes" },
  "prompt-tokens": {
    type: "integer",
    many: true,
    placeholder: "ID",
    description: "token ids to go on from",
  },
  "max-new-tokens": { type: "integer", min: 1, default: 200, description: "tokens to write" },
  temperature: { type: "number", min: 0, default: 0.8, description: "0 takes the likeliest token" },
  "top-k": {
    type: "integer",
    min: 0,
    default: 0,
    description: "consider only so many likeliest tokens; 0: all",
  },
  seed: { type: "integer", min: 0, max: 2 ** 32 - 1, default: 0, description: "seed of the choice" },
};

/** Writes text with a model from a checkpoint or a Hugging Face directory. */
export const generateCommand = (registry: Registry): CommandSpec => ({
  summary: "writes text with a model from a checkpoint or Hugging Face directory",
  // Read when they are asked for: plugins may be set up in any order.
  get options() {
    return { ...GENERATE_OPTIONS, ...runOptions(registry, "shard") };
  },
  run: async (context) => {
    const { options, registry } = context;
    const directory = text(options, "model");
    const checkpoint = text(options, "checkpoint");
    if ((directory === undefined) === (checkpoint === undefined)) {
      throw new ConfigError("cannot generate: give one of --checkpoint and --model");
    }
    const { place, sharding } = await readRunConfig(context);
    const model =
      directory === undefined
        ? await findCheckpoint(registry, checkpoint!, "use --checkpoint")
        : await modelFromDirectory(registry, directory, "--model");
    const asText = options["prompt-tokens"] === undefined;
    const tokens = await runGeneration(context, {
      model,
      place,
      fsdp: sharding,
      prompt: promptTokens(context),
      maxNewTokens: number(options, "max-new-tokens"),
      sample: {
        temperature: number(options, "temperature"),
        topK: number(options, "top-k"),
        seed: number(options, "seed"),
      },
    });
    if (options.json === true)
      context.print(JSON.stringify({ tokens, ...(asText ? { text: decode(tokens) } : {}) }));
    else context.print(asText ? (text(options, "prompt") ?? "") + decode(tokens) : tokens.join(" "));
    return 0;
  },
});

/** Runs the ranks and returns the new tokens. */
export async function runGeneration(
  context: CommandContext,
  config: GenerateConfig,
  onToken?: (token: number) => void,
): Promise<readonly number[]> {
  const [tokens] = await superviseRanks(context.registry, "generate", config, config.place, {
    onMessage: (_rank, message) => onToken?.((message as GenerateMessage).token),
  });
  return tokens as readonly number[];
}

/** Bytes as text. */
export function decode(tokens: readonly number[]): string {
  return new TextDecoder().decode(Uint8Array.from(tokens));
}

function promptTokens({ options }: CommandContext): readonly number[] {
  const ids = list(options, "prompt-tokens").map(Number);
  const prompt = text(options, "prompt");
  if (ids.length > 0 && prompt !== undefined) {
    throw new ConfigError("cannot generate: give one of --prompt and --prompt-tokens");
  }
  const tokens = ids.length > 0 ? ids : [...new TextEncoder().encode(prompt ?? "\n")];
  const odd = tokens.find((token) => !Number.isSafeInteger(token) || token < 0);
  if (odd !== undefined)
    throw new ConfigError(`cannot use --prompt-tokens: given ${odd}, allowed are whole numbers >= 0`);
  if (tokens.length === 0)
    throw new ConfigError("cannot use --prompt: given nothing, allowed is at least one character");
  return tokens;
}

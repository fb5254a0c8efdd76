/**
 * The rank program "generate": continues a prompt with a model that is sharded over the ranks.
 *
 * @module
 */
import * as v from "valibot";
import { CheckpointError, ShapeError } from "../../core/contracts/errors.ts";
import type { Registry } from "../../core/contracts/plugin.ts";
import type { RankContext } from "../../core/contracts/transport.ts";
import { modelState } from "../../core/engine/sharded-state.ts";
import { type CheckpointPlace, openCheckpoints } from "../../core/runtime/checkpoint-place.ts";
import type { CausalLanguageModel } from "../../core/runtime/model-family.ts";
import type { Place } from "../../core/runtime/place.ts";
import type { ShardingConfig } from "../../core/runtime/run-config.ts";
import type { Device } from "../../core/tensor/device.ts";
import type { ModelConfig } from "./config.ts";
import { type SampleOptions, sampleToken } from "./sample.ts";
import { createDevices, createShardedModel, type RankDevices } from "./setup.ts";

/** What to generate. */
export interface GenerateConfig {
  readonly model: ModelConfig | CheckpointPlace;
  readonly place: Place;
  readonly fsdp: ShardingConfig;
  readonly prompt: readonly number[];
  readonly maxNewTokens: number;
  readonly sample: SampleOptions;
}

/** What rank 0 reports for every new token. */
export interface GenerateMessage {
  readonly token: number;
}

const SavedModel = v.object({ family: v.string(), config: v.string() });

/** Generates as one rank. Returns the new tokens. */
export async function generateRank(
  registry: Registry,
  context: RankContext,
  config: GenerateConfig,
): Promise<readonly number[]> {
  const devices = await createDevices(registry, context, config.place, config.fsdp, 0);
  try {
    const model = await loadModel(registry, context, devices, config);
    model.module.eval();
    return await generate(context, devices.device, model, config);
  } finally {
    await devices.dispose();
  }
}

async function loadModel(
  registry: Registry,
  context: RankContext,
  devices: RankDevices,
  config: GenerateConfig,
): Promise<CausalLanguageModel> {
  if ("family" in config.model) {
    return await createShardedModel(registry, context, devices, config.model, config.fsdp);
  }
  const { location, name } = config.model;
  const checkpoints = openCheckpoints(registry, location);
  const { values } = await checkpoints.load({ tensors: [] }, name, context.collective);
  const saved = v.safeParse(SavedModel, values.model);
  if (!saved.success) throw new CheckpointError(`Checkpoint "${name}" does not say which model it holds`);
  const { family, config: json } = saved.output;
  const source = { family, config: JSON.parse(json) as unknown };
  const model = await createShardedModel(registry, context, devices, source, config.fsdp);
  await checkpoints.load({ tensors: modelState(model.module, context.collective) }, name, context.collective);
  return model;
}

async function generate(
  context: RankContext,
  device: Device,
  model: CausalLanguageModel,
  config: GenerateConfig,
): Promise<readonly number[]> {
  const tokens = [...config.prompt];
  const unknown = tokens.find((token) => token >= model.vocabSize);
  if (unknown !== undefined) {
    throw new ShapeError(
      `Generating failed: token ${unknown} in the prompt, the model has ${model.vocabSize} tokens`,
    );
  }
  const next = new Int32Array(2);
  for (let i = 0; i < config.maxNewTokens; i++) {
    const logits = await device.noGrad(() => device.scope(() => lastLogits(device, model, tokens)));
    // Rank 0 decides, so that ranks cannot drift apart.
    next[0] = sampleToken(logits, i, config.sample);
    next[1] = context.stopRequested() ? 1 : 0;
    await context.collective.broadcast(next, 0).wait();
    if (next[1] === 1) break;
    tokens.push(next[0]!);
    if (context.rank === 0) context.report({ token: next[0]! } satisfies GenerateMessage);
  }
  return tokens.slice(config.prompt.length);
}

/** Logits of the token after the last. The model sees as much of the text as it can. */
async function lastLogits(
  device: Device,
  model: CausalLanguageModel,
  tokens: readonly number[],
): Promise<ArrayLike<number>> {
  const seen = Int32Array.from(tokens.slice(-model.contextLength));
  const ids = device.tensor(seen, { shape: [1, seen.length] });
  const logits = (await (await model.module.call(ids)).data()) as Float32Array;
  return logits.subarray(logits.length - model.vocabSize);
}

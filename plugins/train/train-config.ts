/**
 * From the options of `train` to a checked run.
 *
 * @module
 */
import { access } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { ConfigError } from "../../core/contracts/errors.ts";
import { FORMAT, type Registry } from "../../core/contracts/plugin.ts";
import { findCheckpoint, openCheckpoints } from "../../core/runtime/checkpoint-place.ts";
import { MODEL } from "../../core/runtime/model-family.ts";
import type { RunConfig } from "../../core/runtime/run-config.ts";
import { SHARDING } from "../../core/runtime/sharding-version.ts";
import { openBatches } from "./batches.ts";
import {
  type DataConfig,
  list,
  type ModelConfig,
  modelFromConfig,
  modelFromDirectory,
  number,
  type Options,
  type TrainConfig,
  text,
} from "./config.ts";
import { openTokens } from "./data/tokens-file.ts";
import { openWeights } from "./setup.ts";

const PRECISIONS = { no: undefined, fp16: "float16", bf16: "bfloat16" } as const;

/**
 * Reads the options and looks at every input before a rank starts, so that what is wrong is said once, in one line.
 *
 * @throws ConfigError or CheckpointError that names the option.
 */
export async function readTrainConfig(
  registry: Registry,
  options: Options,
  run: RunConfig,
): Promise<TrainConfig> {
  const { place, sharding: fsdp, accumulation } = run;
  registry.get(SHARDING, fsdp.version);
  const model = await modelConfig(registry, options);
  const { vocabSize, contextLength } = await checkModel(registry, model);
  const data = dataConfig(options);
  const tokens = await tokensShape(registry, data, { worldSize: place.worldSize, vocabSize });
  const save = text(options, "save");
  const seqLen =
    tokens?.seqLen ?? (options["seq-len"] === undefined ? contextLength : number(options, "seq-len"));
  if (seqLen > contextLength) {
    const option = tokens === undefined ? "--seq-len" : "--tokens";
    throw new ConfigError(
      `cannot use ${option}: given ${seqLen} tokens a sequence, the model takes up to ${contextLength}`,
    );
  }
  if (tokens === undefined && options.steps === undefined)
    throw new ConfigError("cannot train: --steps is missing");
  const config: TrainConfig = {
    model,
    data,
    place,
    fsdp,
    precision: PRECISIONS[run.mixedPrecision],
    steps: options.steps === undefined ? tokens!.steps : number(options, "steps"),
    batchSize: number(options, "batch-size"),
    seqLen,
    accumulation,
    optimizer: {
      kind: text(options, "optimizer")!,
      lr: number(options, "lr"),
      betas: [number(options, "beta1"), number(options, "beta2")],
      eps: number(options, "eps"),
      weightDecay: number(options, "weight-decay"),
      momentum: number(options, "momentum"),
    },
    schedule: { kind: text(options, "lr-schedule")!, warmupSteps: number(options, "warmup-steps") },
    clip: options.clip === undefined ? undefined : number(options, "clip"),
    lateLoss: options["late-loss"] === true,
    seed: number(options, "seed"),
    save,
    saveEvery: options["save-every"] === undefined ? undefined : number(options, "save-every"),
    asyncSave: options["async-save"] === true,
    keepLast: options["keep-last"] === undefined ? undefined : number(options, "keep-last"),
    resume: await resumePlace(registry, text(options, "resume"), save),
    export: text(options, "export"),
  };
  await checkRun(registry, config, vocabSize);
  return config;
}

async function modelConfig(registry: Registry, options: Options): Promise<ModelConfig> {
  const directory = text(options, "model");
  const scratch = text(options, "config-model");
  if ((directory === undefined) === (scratch === undefined)) {
    throw new ConfigError("cannot train: give one of --model and --config-model");
  }
  return directory === undefined
    ? await modelFromConfig(registry, scratch!, "--config-model")
    : await modelFromDirectory(registry, directory, "--model");
}

/** Builds the model once without memory, and compares it with its weights' header. */
async function checkModel(registry: Registry, model: ModelConfig) {
  const weights = await openWeights(registry, model);
  try {
    return registry.get(MODEL, model.family).create(model.config, weights);
  } finally {
    await weights?.close();
  }
}

function dataConfig(options: Options): DataConfig {
  const tokens = text(options, "tokens");
  const paths = list(options, "data");
  if ((tokens === undefined) === (paths.length === 0)) {
    throw new ConfigError("cannot train: give one of --data and --tokens");
  }
  return tokens === undefined ? { kind: "text", paths } : { kind: "tokens", path: tokens };
}

async function tokensShape(
  registry: Registry,
  data: DataConfig,
  place: { readonly worldSize: number; readonly vocabSize: number },
) {
  if (data.kind !== "tokens") return undefined;
  const reader = await registry.get(FORMAT, "safetensors").open(data.path);
  try {
    return openTokens(reader, { path: data.path, steps: 0, rank: 0, ...place });
  } finally {
    await reader.close();
  }
}

async function resumePlace(registry: Registry, resume: string | undefined, save: string | undefined) {
  if (resume === undefined) return undefined;
  if (resume === "latest" && save === undefined) {
    throw new ConfigError(
      "cannot use --resume latest: --save is missing, which says where the checkpoints are",
    );
  }
  return await findCheckpoint(registry, resume === "latest" ? save! : resume, "use --resume");
}

/** Faults that only show when everything is known. */
async function checkRun(registry: Registry, config: TrainConfig, vocabSize: number): Promise<void> {
  const batches = await openBatches(registry, config, {
    rank: 0,
    worldSize: config.place.worldSize,
    vocabSize,
  });
  await batches.close();
  if (config.clip === 0) throw new ConfigError("cannot use --clip: given 0, allowed are numbers > 0");
  if (config.saveEvery !== undefined && config.save === undefined) {
    throw new ConfigError("cannot use --save-every: --save is missing, which says where checkpoints go");
  }
  for (const option of ["async-save", "keep-last"] as const) {
    const given = option === "async-save" ? config.asyncSave : config.keepLast !== undefined;
    if (given && config.save === undefined) {
      throw new ConfigError(`cannot use --${option}: --save is missing, which says where checkpoints go`);
    }
  }
  if (config.save !== undefined) await checkSave(registry, config, config.save);
  if (config.export !== undefined) {
    await access(dirname(resolve(config.export))).catch(() => {
      throw new ConfigError(`cannot use --export: the folder of "${config.export}" does not exist`);
    });
  }
}

/** A checkpoint is never overwritten, so a run that starts below one that is there would fail late. */
async function checkSave(registry: Registry, config: TrainConfig, save: string): Promise<void> {
  const first = config.resume === undefined ? 0 : await stepOf(registry, config.resume);
  const later = (await openCheckpoints(registry, save).list()).find((info) => info.step > first);
  if (later === undefined) return;
  throw new ConfigError(
    `cannot use --save: "${save}" has checkpoint "${later.name}" already, go on from it (--resume latest) or save elsewhere`,
  );
}

async function stepOf(
  registry: Registry,
  place: { readonly location: string; readonly name: string },
): Promise<number> {
  const infos = await openCheckpoints(registry, place.location).list();
  return infos.find((info) => info.name === place.name)?.step ?? 0;
}

/**
 * One rank's batches: token ids and targets of a step, whatever the data's kind.
 *
 * @module
 */
import { ConfigError } from "../../core/contracts/errors.ts";
import { FORMAT, type Registry } from "../../core/contracts/plugin.ts";
import type { TrainConfig } from "./config.ts";
import type { Corpus } from "./data/corpus.ts";
import { readCorpus } from "./data/corpus.ts";
import { demoCorpus } from "./data/demo-corpus.ts";
import { windows } from "./data/sampler.ts";
import { openTokens } from "./data/tokens-file.ts";

/** Rows of `seqLen + 1` tokens, row-major. */
export interface Rows {
  readonly tokens: Int32Array;
  readonly rows: number;
  /** Inputs per row. */
  readonly seqLen: number;
}

/** Gives a rank its rows. */
export interface Batches {
  /** All rows of this rank in a step, all microbatches together. */
  rows(step: number): Promise<Rows>;
  /** A fixed set of rows of held-out data, when there is any. */
  heldOut(batch: number): Rows | undefined;
  close(): Promise<void>;
}

/** Whose batches, and for what model. */
export interface BatchPlace {
  readonly rank: number;
  readonly worldSize: number;
  readonly vocabSize: number;
}

/** The data of a run as text. */
function openCorpus(registry: Registry, config: Pick<TrainConfig, "data">): Promise<Corpus> | undefined {
  if (config.data.kind === "text") return readCorpus(config.data.paths);
  if (config.data.kind === "demo") return demoCorpus(registry.root);
  return undefined;
}

/** Opens a run's data for one rank. @throws ConfigError when it does not fit the run. */
export async function openBatches(
  registry: Registry,
  config: TrainConfig,
  place: BatchPlace,
): Promise<Batches> {
  if (config.data.kind === "tokens") return await tokenBatches(registry, config, config.data.path, place);
  if (place.vocabSize < 256) {
    throw new ConfigError(
      `cannot use --data: the model has ${place.vocabSize} tokens, text needs one for each of 256 bytes`,
    );
  }
  const corpus = (await openCorpus(registry, config))!;
  const { seed, seqLen, batchSize, accumulation } = config;
  const rows = batchSize * accumulation;
  const ranks = { rank: place.rank, worldSize: place.worldSize };
  const draw = (text: Uint8Array, stream: number, step: number, count: number): Rows => ({
    tokens: windows(text, { seed: stream, seqLen, step, globalBatch: count * place.worldSize, ...ranks }),
    rows: count,
    seqLen,
  });
  return {
    rows: async (step) => draw(corpus.train, seed, step, rows),
    heldOut: (batch) =>
      corpus.heldOut.length > seqLen ? draw(corpus.heldOut, seed + 1, batch, batchSize) : undefined,
    close: async () => {},
  };
}

async function tokenBatches(
  registry: Registry,
  config: TrainConfig,
  path: string,
  place: BatchPlace,
): Promise<Batches> {
  const reader = await registry.get(FORMAT, "safetensors").open(path);
  const tokens = openTokens(reader, { path, steps: config.steps, ...place });
  if (tokens.rows % config.accumulation !== 0) {
    throw new ConfigError(
      `cannot use --gradient-accumulation-steps: given ${config.accumulation}, allowed are divisors of the ${tokens.rows} rows that --tokens has for a rank`,
    );
  }
  return {
    rows: async (step) => ({ tokens: await tokens.read(step), rows: tokens.rows, seqLen: tokens.seqLen }),
    heldOut: () => undefined,
    close: () => reader.close(),
  };
}

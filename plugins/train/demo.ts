/**
 * The demo: the whole job in a couple of minutes on any machine. Trains a small GPT-2 on text that is at hand, saves its
 * shards over HTTP to a checkpoint service of its own, loads them again over another number of ranks and lets the model
 * write.
 *
 * @module
 */
import { join } from "node:path";
import type { CommandContext } from "../../core/contracts/command.ts";
import { CHECKPOINT_SERVICE } from "../../core/runtime/checkpoint-service.ts";
import { INTERRUPTED } from "../../core/runtime/interrupt.ts";
import { MODEL } from "../../core/runtime/model-family.ts";
import { textTable } from "../../core/runtime/text-table.ts";
import type { TrainConfig } from "./config.ts";
import { decode, runGeneration } from "./generate-command.ts";
import { runTraining, summaryRows } from "./run-training.ts";

const RANKS = 2;
/** Another number, that does not divide the model evenly. */
const GENERATING_RANKS = 3;
const STEPS = 1200;
const PROMPT = "/**\n * ";
const PRESET = "gpt2-bytes";
/** What the service serves: a folder per run. */
const FOLDER = "runs";

/** Runs the demo. Returns the exit code. */
export async function runDemo(context: CommandContext): Promise<number> {
  const run = `demo-${new Date().toISOString().replace(/[:.]/g, "-").toLowerCase()}`;
  const service = await context.registry.get(CHECKPOINT_SERVICE, "http")(FOLDER);
  try {
    return await trainAndWrite(context, { url: `${service.url}/runs/${run}`, folder: join(FOLDER, run) });
  } finally {
    await service.close();
  }
}

/** Where the run's checkpoints are, at the service and, for people, on the disk. */
interface SavePlace {
  readonly url: string;
  readonly folder: string;
}

async function trainAndWrite(context: CommandContext, { url, folder }: SavePlace): Promise<number> {
  const json = context.options.json === true;
  const say = (line: string) => {
    if (!json) context.print(line);
  };
  const config = demoConfig(context, url);
  say("Training GPT-2 on the bytes of this repository's sources and its dependencies' documentation.");
  say(`Each rank saves over HTTP to a checkpoint service of this process: ${url}`);
  const outcome = await runTraining(context, config, undefined);
  const { result, checkpoint } = outcome;
  if (!result.stopped && checkpoint !== undefined) {
    say("");
    say(`Loading ${checkpoint} over HTTP on ${GENERATING_RANKS} ranks. It was saved by ${RANKS}. It writes:`);
    say("");
    const tokens = await runGeneration(context, {
      model: { location: url, name: checkpoint },
      place: { ...config.place, worldSize: GENERATING_RANKS },
      fsdp: config.fsdp,
      prompt: [...new TextEncoder().encode(PROMPT)],
      maxNewTokens: 320,
      sample: { temperature: 0.7, topK: 40, seed: config.seed },
    });
    for (const line of (PROMPT + decode(tokens)).split("\n")) say(`    ${line}`);
    say("");
  }
  if (json) context.print(JSON.stringify({ ...result, checkpoint: checkpoint ?? null }));
  // The service ends with the demo, the folder stays.
  else for (const line of textTable(summaryRows({ ...config, save: folder }, outcome))) context.print(line);
  return result.stopped ? INTERRUPTED : 0;
}

function demoConfig(context: CommandContext, save: string): TrainConfig {
  const config = context.registry.get(MODEL, "gpt2").presets[PRESET];
  return {
    model: { family: "gpt2", config },
    data: { kind: "demo" },
    place: { backend: "cpu", backendSettings: {}, collective: "threads", worldSize: RANKS },
    fsdp: {
      version: "fsdp2",
      settings: {},
      reshardAfterForward: true,
      forwardPrefetch: false,
      cpuRamEfficientLoading: false,
      offload: false,
      activationCheckpointing: false,
      wrapPolicy: "TRANSFORMER_BASED_WRAP",
      minNumParams: 0,
      stateDictType: "SHARDED_STATE_DICT",
    },
    steps: STEPS,
    batchSize: 4,
    seqLen: 128,
    accumulation: 1,
    optimizer: { kind: "adamw", lr: 3e-3, betas: [0.9, 0.99], eps: 1e-8, weightDecay: 0.1, momentum: 0 },
    schedule: { kind: "cosine", warmupSteps: 40 },
    clip: 1,
    lateLoss: false,
    seed: 1,
    save,
    saveEvery: STEPS / 2,
  };
}

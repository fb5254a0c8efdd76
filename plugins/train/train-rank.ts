/**
 * The rank program "train": what each rank of a training run does.
 *
 * @module
 */
import type { Checkpointer, ShardedState } from "../../core/contracts/checkpointer.ts";
import type { MemoryReport } from "../../core/contracts/memory.ts";
import type { Registry } from "../../core/contracts/plugin.ts";
import type { RankContext } from "../../core/contracts/transport.ts";
import { clipGradNorm } from "../../core/engine/clip.ts";
import { setRequiresGradientSync } from "../../core/engine/shard-module.ts";
import { modelState, optimizerState } from "../../core/engine/sharded-state.ts";
import { AdamW } from "../../core/optim/adamw.ts";
import { GradScaler } from "../../core/optim/grad-scaler.ts";
import { warmupConstant, warmupCosine } from "../../core/optim/schedule.ts";
import { SGD } from "../../core/optim/sgd.ts";
import type { CausalLanguageModel } from "../../core/runtime/model-family.ts";
import type { Device } from "../../core/tensor/device.ts";
import { type Batches, openBatches, type Rows } from "./batches.ts";
import { openCheckpoints } from "./checkpoints.ts";
import type { TrainConfig } from "./config.ts";
import { exportWeights } from "./export-weights.ts";
import { createDevice, createShardedModel } from "./setup.ts";

/** What rank 0 reports while it trains. */
export type TrainMessage =
  | {
      readonly kind: "start";
      readonly parameters: number;
      readonly device: string;
      readonly firstStep: number;
    }
  | { readonly kind: "evaluated"; readonly loss: number }
  | {
      readonly kind: "step";
      /** Steps done. */
      readonly step: number;
      readonly loss: number;
      /** Before clipping; absent when gradients are not clipped. */
      readonly gradNorm: number | undefined;
      readonly lr: number;
      readonly tokensPerSecond: number;
      /** Of rank 0. */
      readonly memory: MemoryReport;
      /** Highest peak of any rank. */
      readonly peakMemory: number;
    }
  | { readonly kind: "saved"; readonly name: string; readonly bytes: number; readonly seconds: number };

/** What every rank returns. */
export interface TrainResult {
  /** Steps done, those before a resume too. */
  readonly step: number;
  readonly stopped: boolean;
  readonly heldOut: { readonly before: number; readonly after: number } | undefined;
  readonly memory: MemoryReport;
  /** Bytes of parameters, gradients and optimizer state if nothing were sharded. */
  readonly unshardedState: number;
}

/** Batches of held-out data that the loss before and after is taken from. */
const HELD_OUT_BATCHES = 4;

/** Trains as one rank. */
export async function trainRank(
  registry: Registry,
  context: RankContext,
  config: TrainConfig,
): Promise<TrainResult> {
  const device = await createDevice(registry, context, config.place, config.seed);
  try {
    const model = await createShardedModel(
      registry,
      context,
      device,
      config.model,
      config.fsdp,
      config.precision,
    );
    const optimizer = createOptimizer(config, model);
    const scaler = config.precision === "float16" ? new GradScaler() : undefined;
    const checkpoints = config.save === undefined ? undefined : openCheckpoints(registry, config.save);
    const firstStep = await resume(registry, context, config, { device, model, optimizer, scaler });
    const place = { rank: context.rank, worldSize: context.worldSize, vocabSize: model.vocabSize };
    const batches = await openBatches(registry, config, place);
    try {
      const run: Run = {
        registry,
        context,
        config,
        device,
        model,
        optimizer,
        scaler,
        batches,
        checkpoints,
        firstStep,
      };
      return await train(run);
    } finally {
      await batches.close();
    }
  } finally {
    await device.backend.dispose();
  }
}

interface Run {
  readonly registry: Registry;
  readonly context: RankContext;
  readonly config: TrainConfig;
  readonly device: Device;
  readonly model: CausalLanguageModel;
  readonly optimizer: AdamW | SGD;
  /** Scales losses of 16-bit runs whose dtype underflows. */
  readonly scaler: GradScaler | undefined;
  readonly batches: Batches;
  readonly checkpoints: Checkpointer | undefined;
  readonly firstStep: number;
}

async function train(run: Run): Promise<TrainResult> {
  const { context, config, device, model } = run;
  const numel = model.module.parameters().reduce((sum, parameter) => sum + parameter.numel, 0);
  report(context, {
    kind: "start",
    parameters: numel,
    device: device.backend.description,
    firstStep: run.firstStep,
  });
  const before = await evaluate(run);
  if (before !== undefined) report(context, { kind: "evaluated", loss: before });
  // Before the first step, not in it: every step then needs the same memory.
  run.optimizer.initState();
  device.backend.memory.resetPeak();

  let step = run.firstStep;
  let saved = step;
  let stopped = false;
  while (step < config.steps && !stopped) {
    stopped = await trainStep(run, step);
    step++;
    const due = config.saveEvery !== undefined && step % config.saveEvery === 0;
    if (!stopped && (due || step === config.steps)) saved = await save(run, step, saved);
  }
  const memory = device.backend.memory.report();
  const after = stopped ? undefined : await evaluate(run);
  if (after !== undefined) report(context, { kind: "evaluated", loss: after });
  if (config.export !== undefined && !stopped) {
    await exportWeights(run.registry, model.module, config.export, context.collective);
  }
  return {
    step,
    stopped,
    heldOut: before === undefined || after === undefined ? undefined : { before, after },
    memory,
    unshardedState: unshardedState(run),
  };
}

/** Bytes of all parameters, their gradients and their optimizer state, whole. */
function unshardedState(run: Run): number {
  return run.model.module.parameters().reduce((sum, parameter) => {
    const tensors = 2 + (run.optimizer.state(parameter)?.tensors.length ?? 0);
    return sum + parameter.byteLength * tensors;
  }, 0);
}

/** One optimizer step. Returns whether the ranks agreed to stop after it. */
async function trainStep(run: Run, step: number): Promise<boolean> {
  const { context, config, device, model, optimizer } = run;
  const began = performance.now();
  const factor = scheduleOf(config)(step);
  for (const group of optimizer.groups) group.lr = config.optimizer.lr * factor;

  const batch = await run.batches.rows(step);
  const rows = batch.rows / config.accumulation;
  const scale = run.scaler?.scale ?? 1;
  // What the backward pass begins with: the loss scale, shared among microbatches.
  device.lossScale = scale / config.accumulation;
  const losses: Promise<number>[] = [];
  for (let micro = 0; micro < config.accumulation; micro++) {
    setRequiresGradientSync(model.module, micro === config.accumulation - 1);
    await device.scope(async () => {
      const { ids, targets } = tensors(device, batch, micro * rows, rows);
      const mean = await model.module.call(ids, targets);
      // Read while the device goes on.
      losses.push(mean.item());
      await mean.backward({ gradient: device.full([], device.lossScale, { dtype: mean.dtype }) });
    });
  }
  const parameters = model.module.parameters();
  let gradNorm: number | undefined;
  if (config.clip !== undefined || run.scaler !== undefined) {
    gradNorm = await clipGradNorm(parameters, config.clip ?? Number.POSITIVE_INFINITY, { lossScale: scale });
  }
  const usable = run.scaler === undefined || Number.isFinite(gradNorm);
  if (usable) optimizer.step();
  run.scaler?.update(usable);
  optimizer.zeroGrad();
  await device.backend.flush();
  const loss = (await Promise.all(losses)).reduce((sum, share) => sum + share / config.accumulation, 0);

  const sums = new Float64Array([loss, context.stopRequested() ? 1 : 0]);
  const peaks = new Float64Array([device.backend.memory.report().peakTotal]);
  await context.collective.allReduce(sums, "sum", "float64").wait();
  await context.collective.allReduce(peaks, "max", "float64").wait();
  const seconds = (performance.now() - began) / 1000;
  report(context, {
    kind: "step",
    step: step + 1,
    loss: sums[0]! / context.worldSize,
    gradNorm,
    lr: config.optimizer.lr * factor,
    tokensPerSecond: (batch.rows * batch.seqLen * context.worldSize) / seconds,
    memory: device.backend.memory.report(),
    peakMemory: peaks[0]!,
  });
  return sums[1]! > 0;
}

/** Input ids and targets of some rows, in the current scope. */
function tensors(device: Device, batch: Rows, first: number, rows: number) {
  const width = batch.seqLen + 1;
  const part = (shift: number) => {
    const ids = new Int32Array(rows * batch.seqLen);
    for (let row = 0; row < rows; row++) {
      const start = (first + row) * width + shift;
      ids.set(batch.tokens.subarray(start, start + batch.seqLen), row * batch.seqLen);
    }
    return device.tensor(ids, { shape: [rows, batch.seqLen] });
  };
  return { ids: part(0), targets: part(1) };
}

/** Mean loss on held-out data over all ranks. */
async function evaluate(run: Run): Promise<number | undefined> {
  const { context, device, model, batches } = run;
  const sum = new Float64Array(1);
  model.module.eval();
  for (let i = 0; i < HELD_OUT_BATCHES; i++) {
    const batch = batches.heldOut(i);
    if (batch === undefined) return undefined;
    sum[0]! += await device.noGrad(() =>
      device.scope(async () => {
        const { ids, targets } = tensors(device, batch, 0, batch.rows);
        return await (await model.module.call(ids, targets)).item();
      }),
    );
  }
  model.module.train();
  await context.collective.allReduce(sum, "avg", "float64").wait();
  return sum[0]! / HELD_OUT_BATCHES;
}

function createOptimizer(config: TrainConfig, model: CausalLanguageModel): AdamW | SGD {
  const { kind, lr, betas, eps, weightDecay, momentum } = config.optimizer;
  const parameters = model.module.parameters();
  return kind === "sgd"
    ? new SGD(parameters, { lr, weightDecay, momentum })
    : new AdamW(parameters, { lr, betas, eps, weightDecay });
}

function scheduleOf(config: TrainConfig): (step: number) => number {
  const { warmupSteps, kind } = config.schedule;
  return kind === "cosine"
    ? warmupCosine({ warmupSteps, totalSteps: config.steps })
    : warmupConstant({ warmupSteps });
}

function stateOf(
  run: Pick<Run, "context" | "device" | "model" | "optimizer">,
): Pick<ShardedState, "tensors"> {
  const { model, optimizer, context } = run;
  return {
    tensors: [
      ...modelState(model.module, context.collective),
      ...optimizerState(model.module, optimizer, context.collective),
    ],
  };
}

/** Saves unless this step was saved already. Returns the step. */
async function save(run: Run, step: number, saved: number): Promise<number> {
  const { checkpoints, context, config, device } = run;
  if (checkpoints === undefined || step === saved) return saved;
  const began = performance.now();
  const info = await checkpoints.save(
    {
      ...stateOf(run),
      values: {
        step,
        model: { family: config.model.family, config: JSON.stringify(run.model.config) },
        optimizer: { kind: config.optimizer.kind },
        scaler: run.scaler?.values() ?? null,
      },
      rankValues: { streams: device.streamPosition },
    },
    step,
    context.collective,
  );
  const seconds = (performance.now() - began) / 1000;
  report(context, { kind: "saved", name: info.name, bytes: info.bytes, seconds });
  return step;
}

/** Fills model and optimizer from the checkpoint to resume from. Returns the steps done. */
async function resume(
  registry: Registry,
  context: RankContext,
  config: TrainConfig,
  parts: Pick<Run, "device" | "model" | "optimizer" | "scaler">,
): Promise<number> {
  if (config.resume === undefined) return 0;
  const { location, name } = config.resume;
  const checkpoints = openCheckpoints(registry, location);
  const loaded = await checkpoints.load(stateOf({ context, ...parts }), name, context.collective);
  // Every rank has drawn the same number of streams, so another world size may take any rank's.
  const streams = (loaded.rankValues[context.rank] ?? loaded.rankValues[0])?.streams;
  if (typeof streams === "number") parts.device.streamPosition = streams;
  if (parts.scaler !== undefined && loaded.values.scaler !== null)
    parts.scaler.loadValues(loaded.values.scaler);
  return loaded.info.step;
}

/** Rank 0 tells whoever launched the run. */
function report(context: RankContext, message: TrainMessage): void {
  if (context.rank === 0) context.report(message);
}

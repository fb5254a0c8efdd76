/**
 * The rank program "train": what each rank of a training run does.
 *
 * @module
 */
import type { Checkpointer } from "../../core/contracts/checkpointer.ts";
import { FORMAT, type Registry } from "../../core/contracts/plugin.ts";
import type { RankContext } from "../../core/contracts/transport.ts";
import { withFullTensors } from "../../core/engine/model-state-dict.ts";
import { AdamW } from "../../core/optim/adamw.ts";
import { GradScaler } from "../../core/optim/grad-scaler.ts";
import { SGD } from "../../core/optim/sgd.ts";
import { openCheckpoints } from "../../core/runtime/checkpoint-place.ts";
import type { CausalLanguageModel } from "../../core/runtime/model-family.ts";
import { openBatches } from "./batches.ts";
import type { TrainConfig } from "./config.ts";
import { createLossHistory } from "./loss-history.ts";
import { createDevices, createShardedModel } from "./setup.ts";
import type { TrainResult } from "./train-messages.ts";
import { type Run, report, tensors } from "./train-run.ts";
import { createSaves, resume } from "./train-state.ts";
import { type StepEnd, trainStep } from "./train-step.ts";

/** Batches of held-out data that the loss before and after is taken from. */
const HELD_OUT_BATCHES = 4;

/** Trains as one rank. */
export async function trainRank(
  registry: Registry,
  context: RankContext,
  config: TrainConfig,
): Promise<TrainResult> {
  const devices = await createDevices(registry, context, config.place, config.fsdp, config.seed);
  const { device } = devices;
  try {
    const model = await createShardedModel(
      registry,
      context,
      devices,
      config.model,
      config.fsdp,
      config.precision,
    );
    const optimizer = createOptimizer(config, model);
    const scaler = config.precision === "float16" ? new GradScaler() : undefined;
    const checkpoints = openSaves(registry, context, config);
    const losses = createLossHistory();
    const lastReport = { at: 0 };
    const state = { optimizer, scaler, checkpoints, losses, lastReport };
    const parts = { registry, context, config, device, model, ...state };
    const firstStep = await resume(parts);
    const place = { rank: context.rank, worldSize: context.worldSize, vocabSize: model.vocabSize };
    const batches = await openBatches(registry, config, place);
    try {
      return await train({ ...parts, batches, firstStep });
    } finally {
      await batches.close();
    }
  } finally {
    await devices.dispose();
  }
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
  const saves = createSaves(run);
  let stopped = false;
  /** Of steps that were made and not read yet. */
  const ends: StepEnd[] = [];
  while (step < config.steps && !stopped) {
    ends.push(await trainStep(run, step));
    step++;
    const due = step === config.steps || (config.saveEvery !== undefined && step % config.saveEvery === 0);
    // What is saved, and how a run ends, all ranks know to the last step.
    const late = config.lateLoss && !due ? 1 : 0;
    while (ends.length > late) stopped = (await ends.shift()!()) || stopped;
    if (!stopped && due) await saves.save(step);
  }
  for (const end of ends) await end();
  const memory = device.backend.memory.report();
  const after = stopped ? undefined : await evaluate(run);
  if (after !== undefined) report(context, { kind: "evaluated", loss: after });
  const path = stopped ? undefined : config.export;
  if (path !== undefined) {
    const format = run.registry.get(FORMAT, "safetensors");
    await withFullTensors(model.module, context.collective, (whole) =>
      format.write(path, whole, { format: "pt" }),
    );
  }
  await saves.finish();
  return {
    step,
    stopped,
    heldOut: before === undefined || after === undefined ? undefined : { before, after },
    memory,
    unshardedState: unshardedState(run),
  };
}

/** Where the run's checkpoints go, if anywhere. */
function openSaves(registry: Registry, context: RankContext, config: TrainConfig): Checkpointer | undefined {
  if (config.save === undefined) return undefined;
  return openCheckpoints(registry, config.save, {
    keepLast: config.keepLast,
    onRetentionFailure: (error) => report(context, { kind: "retention-failed", problem: String(error) }),
  });
}

/** Bytes of all parameters, their gradients and their optimizer state, whole. */
function unshardedState(run: Run): number {
  return run.model.module.parameters().reduce((sum, parameter) => {
    const tensors = 2 + (run.optimizer.state(parameter)?.tensors.length ?? 0);
    return sum + parameter.byteLength * tensors;
  }, 0);
}

/** Mean loss on held-out data over all ranks; nothing without such data. */
async function evaluate(run: Run): Promise<number | undefined> {
  const { context, device, model, batches } = run;
  const sum = new Float64Array(1);
  model.module.eval();
  try {
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
  } finally {
    model.module.train();
  }
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

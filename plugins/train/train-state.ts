/**
 * A run's checkpoints: what they hold, and how a run goes on from one.
 *
 * @module
 */
import type { CheckpointInfo, ShardedState } from "../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { modelState, optimizerState } from "../../core/engine/sharded-state.ts";
import { openCheckpoints } from "../../core/runtime/checkpoint-place.ts";
import { type Run, report } from "./train-run.ts";

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

function wholeState(run: Run, step: number): ShardedState {
  const { config, device } = run;
  return {
    ...stateOf(run),
    values: {
      step,
      model: { family: config.model.family, config: JSON.stringify(run.model.config) },
      optimizer: { kind: config.optimizer.kind },
      scaler: run.scaler?.values() ?? null,
      losses: run.losses.points(),
    },
    rankValues: { streams: device.streamPosition },
  };
}

/** The saves of a run, one after the other. */
export interface Saves {
  /** Saves a step, or starts to. Every rank calls it; one that fails is reported, and training goes on. */
  save(step: number): Promise<void>;
  /** Waits for what is still being written. @throws CheckpointError on every rank when the last save failed. */
  finish(): Promise<void>;
}

/** How a run saves: at once or in the background, or not at all. */
export function createSaves(run: Run): Saves {
  const { checkpoints, context, config } = run;
  let background: Promise<void> = Promise.resolve();
  /** Of the last save. */
  let failure: CheckpointError | undefined;

  /** Reports how a save ends. Without `blocked` training stands still until then. */
  const follow = async (saving: Promise<CheckpointInfo>, step: number, began: number, blocked?: number) => {
    try {
      const { name, bytes } = await saving;
      const seconds = secondsSince(began);
      report(context, { kind: "saved", name, bytes, seconds, blocked: blocked ?? seconds });
    } catch (error) {
      // Weights are worth more than one checkpoint of them. What ends the run is another kind of error.
      if (!(error instanceof CheckpointError)) throw error;
      report(context, { kind: "save-failed", step, problem: error.message });
      failure = error;
    }
  };

  return {
    async save(step: number): Promise<void> {
      if (checkpoints === undefined) return;
      const began = performance.now();
      const state = wholeState(run, step);
      await background;
      failure = undefined;
      if (!config.asyncSave) {
        await follow(checkpoints.save(state, step, context.collective), step, began);
        return;
      }
      const started = checkpoints.saveAsync(state, step, context.collective);
      const blocked = await started.then(
        () => secondsSince(began),
        () => undefined,
      );
      const ended = started.then((pending) => pending.wait());
      background = follow(ended, step, began, blocked);
      // Its error is met where it is awaited.
      background.catch(() => undefined);
    },
    async finish(): Promise<void> {
      try {
        await background;
      } finally {
        await checkpoints?.close();
      }
      if (failure !== undefined) throw failure;
    },
  };
}

function secondsSince(began: number): number {
  return (performance.now() - began) / 1000;
}

/** Fills model, optimizer and the rest from the checkpoint to resume from, if any. Returns the steps done. */
export async function resume(run: Omit<Run, "batches" | "firstStep">): Promise<number> {
  const { registry, context, config, device, scaler, losses } = run;
  if (config.resume === undefined) return 0;
  const { location, name } = config.resume;
  const loaded = await openCheckpoints(registry, location).load(stateOf(run), name, context.collective);
  // Every rank has drawn the same number of streams, so another world size may take any rank's.
  const streams = (loaded.rankValues[context.rank] ?? loaded.rankValues[0])?.streams;
  if (typeof streams === "number") device.streamPosition = streams;
  // A run in full precision saved none; a scaler then begins anew.
  if (scaler !== undefined && loaded.values.scaler != null) scaler.loadValues(loaded.values.scaler);
  losses.restore(loaded.values.losses, loaded.info.step);
  return loaded.info.step;
}

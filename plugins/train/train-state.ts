/**
 * A run's checkpoints: what they hold, and how a run goes on from one.
 *
 * @module
 */
import type { ShardedState } from "../../core/contracts/checkpointer.ts";
import { modelState, optimizerState } from "../../core/engine/sharded-state.ts";
import { openCheckpoints } from "./checkpoints.ts";
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

/** Saves unless this step was saved already. Returns the step. */
export async function save(run: Run, step: number, saved: number): Promise<number> {
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

/** Fills model, optimizer and the rest from the checkpoint to resume from, if any. Returns the steps done. */
export async function resume(run: Omit<Run, "batches" | "firstStep">): Promise<number> {
  const { registry, context, config, device, scaler } = run;
  if (config.resume === undefined) return 0;
  const { location, name } = config.resume;
  const loaded = await openCheckpoints(registry, location).load(stateOf(run), name, context.collective);
  // Every rank has drawn the same number of streams, so another world size may take any rank's.
  const streams = (loaded.rankValues[context.rank] ?? loaded.rankValues[0])?.streams;
  if (typeof streams === "number") device.streamPosition = streams;
  // A run in full precision saved none; a scaler then begins anew.
  if (scaler !== undefined && loaded.values.scaler != null) scaler.loadValues(loaded.values.scaler);
  return loaded.info.step;
}

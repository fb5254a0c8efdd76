/**
 * A training run as one rank has it: its parts, and what many files say of them.
 *
 * @module
 */
import type { Checkpointer } from "../../core/contracts/checkpointer.ts";
import type { Registry } from "../../core/contracts/plugin.ts";
import type { RankContext } from "../../core/contracts/transport.ts";
import type { AdamW } from "../../core/optim/adamw.ts";
import type { GradScaler } from "../../core/optim/grad-scaler.ts";
import type { SGD } from "../../core/optim/sgd.ts";
import type { CausalLanguageModel } from "../../core/runtime/model-family.ts";
import type { Device } from "../../core/tensor/device.ts";
import type { Tensor } from "../../core/tensor/tensor.ts";
import type { Batches, Rows } from "./batches.ts";
import type { TrainConfig } from "./config.ts";
import type { LossHistory } from "./loss-history.ts";
import type { TrainMessage } from "./train-messages.ts";

/** The parts of a run. */
export interface Run {
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
  /** Losses so far, those before a resume too. */
  readonly losses: LossHistory;
  /** When a step was reported last, as `performance.now()`. */
  readonly lastReport: { at: number };
}

/** Input ids and targets of some rows, in the current scope. */
export function tensors(
  device: Device,
  batch: Rows,
  first: number,
  rows: number,
): { readonly ids: Tensor; readonly targets: Tensor } {
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

/** Rank 0 tells whoever launched the run. */
export function report(context: RankContext, message: TrainMessage): void {
  if (context.rank === 0) context.report(message);
}

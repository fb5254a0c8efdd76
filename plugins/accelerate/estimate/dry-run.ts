/**
 * One rank's training steps on devices that only count. Engine, optimizer and model are those that train, so what is
 * counted is what a run takes: to the byte where collectives reach a device's memory, as they do a CPU's.
 *
 * @module
 */
import { DTYPES } from "../../../core/contracts/dtype.ts";
import { MEMORY_CATEGORIES, type MemoryBytes, type MemoryReport } from "../../../core/contracts/memory.ts";
import { setRequiresGradientSync, unitsBelow } from "../../../core/engine/shard-module.ts";
import { traceUnits } from "../../../core/engine/trace.ts";
import type { Unit } from "../../../core/engine/unit.ts";
import type { UnitEvent } from "../../../core/engine/unit-events.ts";
import { AdamW } from "../../../core/optim/adamw.ts";
import { SGD } from "../../../core/optim/sgd.ts";
import type { CausalLanguageModel } from "../../../core/runtime/model-family.ts";
import { Device } from "../../../core/tensor/device.ts";
import type { Call } from "./communication.ts";
import { countingBackend } from "./counting-backend.ts";
import { type DryModelInit, dryModel } from "./dry-model.ts";

/** What a step works on. */
export interface Workload {
  /** Sequences a rank and microbatch. */
  readonly batchSize: number;
  /** Tokens a sequence. */
  readonly seqLen: number;
  readonly optimizer: "adamw" | "sgd";
  /** SGD's. */
  readonly momentum: number;
  /** Microbatches a step: all but the last leave gradients whole on each rank. Default 1. */
  readonly accumulation?: number;
}

/** What one rank's step took. */
export interface DryRun {
  /** The device that computes, over a step that is not the first. */
  readonly device: MemoryReport;
  /** The host's, when shards are kept there. */
  readonly host: MemoryReport | undefined;
  /** What lies cut, on device and host, between backward pass and update: parameters, gradients, optimizer state. */
  readonly shards: MemoryBytes;
  /** In the order in which they start. */
  readonly calls: readonly Call[];
}

/** Runs a rank's steps. @throws ConfigError for a strategy that does not fit, ShapeError for sequences that are too long. */
export async function dryRun(init: DryModelInit, workload: Workload): Promise<DryRun> {
  const device = new Device(countingBackend());
  const host = new Device(countingBackend());
  let calls: Call[] = [];
  const model = dryModel(init, { host, heard: (call) => calls.push(call) });
  await model.module.to(device);
  const optimizer = optimizerOf(model, workload);
  optimizer.initState();
  const step = async (): Promise<DryRun> => {
    calls = [];
    for (const { backend } of [device, host]) backend.memory.resetPeak();
    const end = traceUnits(model.module, (event) => calls.push(...callOf(event, unitsBelow(model.module))));
    await forwardBackward(device, model, workload);
    end();
    const shards = added(device.backend.memory.report().current, host.backend.memory.report().current);
    optimizer.step();
    optimizer.zeroGrad();
    const report = device.backend.memory.report();
    const onHost = init.strategy.offload === true ? host.backend.memory.report() : undefined;
    return { device: report, host: onHost, shards, calls };
  };
  // The first makes what later ones find, tables of angles for example.
  await step();
  return await step();
}

/** The forward and backward passes of a step. */
async function forwardBackward(
  device: Device,
  model: CausalLanguageModel,
  workload: Workload,
): Promise<void> {
  const { batchSize, seqLen, accumulation = 1 } = workload;
  const shape = [batchSize, seqLen];
  for (let micro = 1; micro <= accumulation; micro++) {
    setRequiresGradientSync(model.module, micro === accumulation);
    await device.scope(async () => {
      const ids = device.zeros(shape, { dtype: "int32" });
      const targets = device.zeros(shape, { dtype: "int32" });
      const loss = await model.module.call(ids, targets);
      await loss.backward({ gradient: device.full([], 1, { dtype: loss.dtype }) });
    });
  }
}

function optimizerOf({ module }: CausalLanguageModel, { optimizer, momentum }: Workload): AdamW | SGD {
  const parameters = module.parameters();
  return optimizer === "sgd" ? new SGD(parameters, { lr: 0, momentum }) : new AdamW(parameters);
}

function callOf(event: UnitEvent, units: readonly Unit[]): Call[] {
  if (!("numel" in event)) return [];
  const { kind, numel, dtype, ranks } = event;
  const bytes = numel * DTYPES[dtype].bytes;
  const unit = units.findIndex(({ name }) => name === event.unit);
  return [{ kind, unit, ranks, bytes: kind === "reduceScatter" ? bytes / ranks : bytes }];
}

function added(a: MemoryBytes, b: MemoryBytes): MemoryBytes {
  const sums = MEMORY_CATEGORIES.map((category) => [category, a[category] + b[category]]);
  return Object.fromEntries(sums) as MemoryBytes;
}

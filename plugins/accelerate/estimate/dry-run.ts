/**
 * One rank's training steps on devices that only count. Engine, optimizer and model are those that train, so what is
 * counted is what a run takes: to the byte where collectives reach a device's memory, as they do a CPU's.
 *
 * @module
 */
import { DTYPES } from "../../../core/contracts/dtype.ts";
import { StateError } from "../../../core/contracts/errors.ts";
import { MEMORY_CATEGORIES, type MemoryBytes, type MemoryReport } from "../../../core/contracts/memory.ts";
import { unitsBelow } from "../../../core/engine/sharded-modules.ts";
import { traceUnits } from "../../../core/engine/trace.ts";
import type { Unit } from "../../../core/engine/unit.ts";
import type { UnitEvent } from "../../../core/engine/unit-events.ts";
import { AdamW } from "../../../core/optim/adamw.ts";
import { SGD } from "../../../core/optim/sgd.ts";
import type { CausalLanguageModel } from "../../../core/runtime/model-family.ts";
import { Device } from "../../../core/tensor/device.ts";
import { countingBackend } from "./counting-backend.ts";
import { type DryModelInit, dryModel } from "./dry-model.ts";

/** What a step works on. */
export interface Workload {
  /** Sequences a rank. */
  readonly batchSize: number;
  /** Tokens a sequence. */
  readonly seqLen: number;
  readonly optimizer: "adamw" | "sgd";
  /** SGD's. */
  readonly momentum: number;
}

/** A collective of a step. */
export interface Call {
  readonly kind: "allGather" | "reduceScatter" | "allReduce";
  /** Which of the model's units: 0 is the first of `unitsBelow`. */
  readonly unit: number;
  /** Ranks that take part. */
  readonly ranks: number;
  /** Of one rank's slice; of the whole for `allReduce`. */
  readonly bytes: number;
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

/** Steps that are run: the first makes what later ones find, tables of angles for example. */
const STEPS = 2;

/** Runs a rank's steps. @throws ConfigError for a strategy that does not fit, ShapeError for sequences that are too long. */
export async function dryRun(init: DryModelInit, workload: Workload): Promise<DryRun> {
  const device = new Device(countingBackend());
  const host = new Device(countingBackend());
  const model = dryModel(init, host);
  await model.module.to(device);
  const optimizer = optimizerOf(model, workload);
  optimizer.initState();
  let run: DryRun | undefined;
  for (let step = 0; step < STEPS; step++) {
    device.backend.memory.resetPeak();
    host.backend.memory.resetPeak();
    const events: UnitEvent[] = [];
    const end = traceUnits(model.module, (event) => events.push(event));
    await forwardBackward(device, model, workload);
    end();
    const offloads = host.backend.memory.report();
    const shards = added(device.backend.memory.report().current, offloads.current);
    optimizer.step();
    optimizer.zeroGrad();
    run = {
      device: device.backend.memory.report(),
      host: init.strategy.offload === true ? host.backend.memory.report() : undefined,
      shards,
      calls: callsOf(events, unitsBelow(model.module)),
    };
  }
  if (run === undefined) throw new StateError("A dry run failed: it made no step");
  return run;
}

/** The forward and backward pass of a step. */
async function forwardBackward(
  device: Device,
  model: CausalLanguageModel,
  workload: Workload,
): Promise<void> {
  const { batchSize, seqLen } = workload;
  const shape = [batchSize, seqLen];
  await device.scope(async () => {
    const ids = device.zeros(shape, { dtype: "int32" });
    const targets = device.zeros(shape, { dtype: "int32" });
    const loss = await model.module.call(ids, targets);
    await loss.backward({ gradient: device.full([], 1, { dtype: loss.dtype }) });
  });
}

function optimizerOf({ module }: CausalLanguageModel, { optimizer, momentum }: Workload): AdamW | SGD {
  const parameters = module.parameters();
  return optimizer === "sgd" ? new SGD(parameters, { lr: 0, momentum }) : new AdamW(parameters);
}

function callsOf(events: readonly UnitEvent[], units: readonly Unit[]): readonly Call[] {
  return events.flatMap((event) => {
    if (!("numel" in event)) return [];
    const { kind, numel, dtype, ranks } = event;
    const bytes = numel * DTYPES[dtype].bytes;
    const unit = units.findIndex(({ name }) => name === event.unit);
    return [{ kind, unit, ranks, bytes: kind === "reduceScatter" ? bytes / ranks : bytes }];
  });
}

function added(a: MemoryBytes, b: MemoryBytes): MemoryBytes {
  const sums = MEMORY_CATEGORIES.map((category) => [category, a[category] + b[category]]);
  return Object.fromEntries(sums) as MemoryBytes;
}

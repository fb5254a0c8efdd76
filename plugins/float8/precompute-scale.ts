/**
 * `precomputeFloat8DynamicScaleForFsdp`, as torchao's function of that name: one scale for a matrix over all ranks, agreed
 * on for all matrices at once.
 *
 * @module
 */
import type { Collective } from "../../core/contracts/collective.ts";
import { accumulatorDType } from "../../core/contracts/dtype.ts";
import { copyInto } from "../../core/engine/copies.ts";
import type { AnyModule } from "../../core/nn/module.ts";
import type { Parameter } from "../../core/nn/parameter.ts";
import type { Device } from "../../core/tensor/device.ts";
import { Float8AllGather } from "./all-gather.ts";

/** A matrix that wants a scale. */
interface Entry {
  readonly parameter: Parameter;
  readonly gather: Float8AllGather;
}

/**
 * Lets all ranks scale each matrix by its largest magnitude anywhere, with one all-reduce for the model, so that results
 * do not depend on how it is cut. Call it after the optimizer's step; an update or a load ends what was agreed on, and
 * without it each rank scales by what it has. Collective. Matrices with a scale for each row need none, nor do those of
 * which nothing changed: then nothing is communicated.
 */
export async function precomputeFloat8DynamicScaleForFsdp(model: AnyModule): Promise<void> {
  const groups = new Map<Collective, Entry[]>();
  for (const parameter of model.parameters()) {
    const { allGatherExtension: gather, manager, materialized } = parameter;
    if (!(gather instanceof Float8AllGather) || manager === undefined) continue;
    if (!materialized || !gather.wantsAmax) continue;
    groups.set(manager.group, [...(groups.get(manager.group) ?? []), { parameter, gather }]);
  }
  for (const [group, entries] of groups) {
    const largest = await largestOf(entries, entries[0]!.parameter.local.device);
    await group.allReduce(largest, "max", "float32").wait();
    for (const [i, { gather }] of entries.entries()) gather.setAmax(largest[i]!);
  }
}

/** The largest magnitude of this rank's part of every matrix. All lie on one device, and are read from it at once. */
async function largestOf(entries: readonly Entry[], device: Device): Promise<Float32Array> {
  using all = device.allocate([entries.length], "float32", "communication");
  for (const [i, { parameter }] of entries.entries()) {
    const { local } = parameter;
    using one = device.allocate([1], accumulatorDType(local.dtype), "communication");
    device.backend.kernels.normPower(local.span, one.span, Number.POSITIVE_INFINITY);
    using place = all.alias([1], i);
    copyInto(place, one);
  }
  return (await all.data()) as Float32Array;
}

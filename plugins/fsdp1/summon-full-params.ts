/**
 * summonFullParams: whole parameters in full precision for as long as a function runs, outside of forward and backward,
 * to look at or to change. Follows `_unshard_params` of torch/distributed/fsdp/_unshard_param_utils.py.
 *
 * @module
 */
import { ConfigError } from "../../core/contracts/errors.ts";
import { copyInto, downloaded, uploaded } from "../../core/engine/copies.ts";
import { isFirst } from "../../core/engine/rank-groups.ts";
import type { Device } from "../../core/tensor/device.ts";
import type { Tensor } from "../../core/tensor/tensor.ts";
import { gatherShard } from "./gather-shard.ts";
import { type GradParts, putBackGrads, summonGrads } from "./summon-grads.ts";
import { type FlatUnit, idle, type Wrapped } from "./wrapped.ts";

/** Options of `summonFullParams`. */
export interface SummonOptions {
  /** Units below too. Default true. */
  readonly recurse?: boolean | undefined;
  /** Keep this rank's part of what the function changes. Default true. */
  readonly writeback?: boolean | undefined;
  /** Rank 0 alone has them; others' stay sharded. Not with `writeback`. Default false. */
  readonly rank0Only?: boolean | undefined;
  /** Put them on this device, the host's, in place of the one that computes. */
  readonly offloadToCpu?: Device | undefined;
  /** `grad` is whole too. Takes `useOrigParams`, and no offload. Default false. */
  readonly withGrads?: boolean | undefined;
}

/** A unit whose parameters are whole. */
interface Summoned {
  readonly unit: FlatUnit;
  /** [ranks * shardNumel]; absent where they stay sharded. */
  readonly whole: Tensor | undefined;
  /** This rank's parts of the gradients, while these are whole. */
  parts?: GradParts;
}

/**
 * Runs `body` while the parameters of a sharded module are whole. Collective: every rank's `body` is run once all have
 * them.
 *
 * @throws StateError while a forward or backward pass or another call is under way in the module.
 * @throws ConfigError for options that exclude each other.
 */
export async function summonFullParams<T>(
  wrapped: Wrapped,
  options: SummonOptions,
  body: () => T | Promise<T>,
): Promise<T> {
  const { recurse = true, rank0Only = false, withGrads = false, offloadToCpu } = options;
  const writeback = options.writeback ?? true;
  const failed = "summonFullParams() failed:";
  if (writeback && rank0Only) {
    throw new ConfigError(`${failed} writeback and rank0Only were given, allowed is one of them`);
  }
  if (withGrads && (!wrapped.useOrigParams || offloadToCpu !== undefined)) {
    throw new ConfigError(
      `${failed} withGrads was given, which takes useOrigParams: true and no offloadToCpu`,
    );
  }
  const below = idle(wrapped, "summonFullParams()");
  const taken = recurse ? below : [wrapped];
  const summoned: Summoned[] = [];
  for (const each of taken) each.phase = "summoned";
  try {
    for (const { unit, groups } of taken) {
      if (unit === undefined) continue;
      const here = !rank0Only || isFirst(groups);
      const whole = await gather(unit, here ? (offloadToCpu ?? unit.engine.device) : undefined);
      const entry: Summoned = { unit, whole };
      summoned.push(entry);
      if (withGrads) entry.parts = await summonGrads(unit);
    }
    return await body();
  } finally {
    for (const { unit, whole, parts } of summoned) {
      if (parts !== undefined) putBackGrads(unit, parts, writeback);
      if (whole !== undefined) await putBack(unit, whole, writeback);
    }
    for (const each of taken) each.phase = "idle";
  }
}

/** Gathers a unit's shards in full precision and shows the parameters there; without a device just helps the others. */
async function gather(unit: FlatUnit, device: Device | undefined): Promise<Tensor | undefined> {
  const { engine, layout, parameters, flat } = unit;
  engine.reshard();
  const shard = engine.shards.flats[0]!;
  const gathered = await gatherShard(unit, shard, "parameter");
  if (device === undefined) {
    gathered.dispose();
    return undefined;
  }
  const whole = await moved(gathered, device);
  const show = [...parameters.map(({ parameter }, i) => ({ parameter, start: layout.starts[i]! }))];
  if (flat !== undefined) show.push({ parameter: flat, start: 0 });
  for (const { parameter, start } of show) {
    parameter.setGathered(device, whole.dtype, whole.storage.retain(), whole.offset + start);
  }
  return whole;
}

/** Shards the parameters again; this rank keeps its part of what they hold now if `writeback`. */
async function putBack(unit: FlatUnit, whole: Tensor, writeback: boolean): Promise<void> {
  const { engine, parameters, flat } = unit;
  const shard = engine.shards.flats[0]!;
  if (writeback) {
    const own = await moved(whole.alias([shard.numel], engine.group.rank * shard.numel), shard.device);
    copyInto(shard, own);
    own.dispose();
  }
  for (const { parameter } of parameters) parameter.dropGathered(engine.device);
  flat?.dropGathered(engine.device);
  whole.dispose();
}

/** The elements (taken over) on another device; one of the two is the host's. */
async function moved(source: Tensor, device: Device): Promise<Tensor> {
  if (source.device === device) return source;
  const fromHost = source.device.backend.hostView(source.span) !== undefined;
  return fromHost ? uploaded(source, device, "parameter") : await downloaded(source, device, "parameter");
}

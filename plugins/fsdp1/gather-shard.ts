/**
 * Flat shards whole, and parts as flat shards: for summoned parameters and gradients.
 *
 * @module
 */
import type { MemoryCategory } from "../../core/contracts/memory.ts";
import { copyInto } from "../../core/engine/copies.ts";
import { allGather } from "../../core/engine/transfer.ts";
import type { Tensor } from "../../core/tensor/tensor.ts";
import { type FlatUnit, ownRanges } from "./wrapped.ts";

/** The ranks' shards one after the other, [ranks * shardNumel], owned by the caller. Collective over the unit's group. */
export async function gatherShard(
  { engine: { group } }: FlatUnit,
  shard: Tensor,
  category: MemoryCategory,
): Promise<Tensor> {
  const whole = shard.device.allocate([group.size * shard.numel], shard.dtype, category);
  if (group.size === 1) copyInto(whole, shard);
  else await allGather(group, whole, shard).wait();
  return whole;
}

/** Tensors of this rank's parts of a unit's parameters as one shard, owned by the caller; zeros where there is none. */
export function joinParts(unit: FlatUnit, parts: readonly (Tensor | undefined)[]): Tensor {
  const { device, dtype, numel } = unit.engine.shards.flats[0]!;
  const given = parts.find((part) => part !== undefined)?.dtype ?? dtype;
  const shard = device.allocate([numel], given, "gradient");
  device.backend.kernels.fill(shard.span, 0);
  for (const { parameter, shardOffset } of ownRanges(unit)) {
    const part = parts[parameter];
    if (part === undefined) continue;
    using target = shard.alias([part.numel], shardOffset);
    copyInto(target, part);
  }
  return shard;
}

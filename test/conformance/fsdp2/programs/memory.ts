/** What a rank's device holds in the steps of a sharded model. */
import type { MemoryReport } from "../../../../core/contracts/memory.ts";
import { unitsBelow } from "../../../../core/engine/shard-module.ts";
import { AdamW } from "../../../../core/optim/mod.ts";
import * as ops from "../../../../core/tensor/ops/mod.ts";
import { Stack } from "../../../support/models.ts";
import type { ConformanceRank } from "../rank.ts";
import { type ShardSpec, shard } from "./models.ts";

/** Bytes at points of a step. */
export interface MemoryPoints {
  /** All parameters, a rank's part of them, the largest group but the root's, and the root's. */
  readonly sizes: Readonly<Record<"whole" | "part" | "block" | "rest", number>>;
  /** After the model was put on the device. */
  readonly sharded: number;
  /** Most in the first forward pass and in the first backward pass. */
  readonly forward: number;
  readonly backward: number;
  /** After the update and after gradients were freed. */
  readonly updated: number;
  readonly zeroed: number;
  /** Most in each of two further steps, of each category and of all. */
  readonly steps: readonly MemoryReport[];
  /** When all has been disposed. */
  readonly left: number;
}

/** Trains wide blocks on one row, so that parameters are most of what there is. */
export async function memoryPoints(
  rank: ConformanceRank,
  { sharding }: { readonly sharding: ShardSpec },
): Promise<MemoryPoints> {
  const { device } = rank;
  const { memory } = device.backend;
  const inner = new Stack({ layers: 4, features: 8, width: 32, hidden: 64 });
  const { model } = await shard(rank, inner, sharding);
  await model.to(device);
  const bytes = (report: MemoryReport): number => report.currentTotal - report.current.activation;
  const step = async (between: () => void): Promise<void> =>
    await device.scope(async () => {
      const loss = ops.mean(await model.call(device.ones([1, 8])));
      await device.backend.flush();
      between();
      await loss.backward();
    });
  await device.backend.flush();
  const sharded = bytes(memory.report());
  const optimizer = new AdamW(model.parameters());
  memory.resetPeak();
  let forward = 0;
  await step(() => {
    forward = memory.report().peakTotal;
    memory.resetPeak();
  });
  await device.backend.flush();
  const backward = memory.report().peakTotal;
  optimizer.step();
  await device.backend.flush();
  const updated = bytes(memory.report());
  optimizer.zeroGrad();
  await device.backend.flush();
  const zeroed = bytes(memory.report());
  const steps: MemoryReport[] = [];
  for (let i = 0; i < 2; i++) {
    memory.resetPeak();
    await step(() => {});
    optimizer.step();
    optimizer.zeroGrad();
    await device.backend.flush();
    steps.push(memory.report());
  }
  const units = unitsBelow(model);
  const numels = units.map(({ numel }) => 4 * numel);
  const sizes = {
    whole: numels.reduce((sum, n) => sum + n, 0),
    part: units.reduce((sum, { shardNumel }) => sum + 4 * shardNumel, 0),
    block: Math.max(...numels.slice(1)),
    rest: numels[0]!,
  };
  optimizer.dispose();
  model.dispose();
  await device.backend.flush();
  return { sizes, sharded, forward, backward, updated, zeroed, steps, left: memory.report().currentTotal };
}

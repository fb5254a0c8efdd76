import { describe, expect, test } from "bun:test";
import type { MEMORY_CATEGORIES, MemoryReport } from "../../../../core/contracts/memory.ts";
import { registry } from "../../../../mod.ts";
import { bytesSent } from "../../../../plugins/accelerate/estimate/communication.ts";
import { dryRun, type Workload } from "../../../../plugins/accelerate/estimate/dry-run.ts";
import { chooseModel } from "../../../../plugins/accelerate/estimate/model-choice.ts";
import { allStrategies, applies, type Strategy } from "../../../../plugins/accelerate/estimate/strategies.ts";
import { fixture } from "../../../support/command.ts";
import { type MeasuredInit, measure } from "./measured-run.ts";

const WORKLOAD: Workload = { batchSize: 1, seqLen: 8, optimizer: "adamw", momentum: 0 };
const MODELS = ["gpt2-tiny", "llama-tiny"] as const;

/** Sum of categories. */
function total(reports: readonly MemoryReport[], category: (typeof MEMORY_CATEGORIES)[number]): number {
  return reports.reduce((sum, { current }) => sum + current[category], 0);
}

/** Runs and counts, and expects the same for the first and the last rank, and no more of any other. */
async function expectMeasured(init: MeasuredInit): Promise<void> {
  const measured = await measure(init);
  const last = measured.length - 1;
  for (const rank of new Set([0, last])) {
    const counted = await dryRun({ registry, ...init, rank }, init.workload);
    const real = measured[rank]!;
    // Every step takes the same.
    for (const report of real.device) expect(report).toEqual(counted.device);
    for (const report of real.host) expect(report).toEqual(counted.host!);
    expect(real.host.length > 0).toBe(counted.host !== undefined);
    for (const category of ["parameter", "gradient", "optimizer"] as const) {
      expect(counted.shards[category]).toBe(total(real.afterBackward, category));
    }
    expect(counted.calls.length).toBe(real.collectives);
    expect(counted.calls.reduce((sum, call) => sum + bytesSent(call), 0)).toBeCloseTo(real.bytesSent, 3);
  }
  const [first] = measured;
  const worst = Math.max(...measured.map(({ device }) => device.at(-1)!.peakTotal));
  expect(first!.device.at(-1)!.peakTotal).toBeGreaterThanOrEqual(0.98 * worst);
}

describe.each(MODELS)("a dry run of %s", (name) => {
  for (const worldSize of [1, 2, 4, 8]) {
    const world = { worldSize, ranksPerNode: 2 };
    for (const strategy of allStrategies(registry).filter((each) => applies(each, world))) {
      test(`counts to the byte what ${strategy.name} takes and sends on ${worldSize} ranks`, async () => {
        const model = await chooseModel(registry, fixture(`${name}/model`));
        await expectMeasured({ model, strategy, world, workload: WORKLOAD });
      });
    }
  }

  test("counts activation checkpointing, mixed precision, momentum, and microbatches too", async () => {
    const model = await chooseModel(registry, fixture(`${name}/model`));
    const strategy: Strategy = { name: "", version: "fsdp2" };
    const world = { worldSize: 2, ranksPerNode: 2 };
    const init = { model, strategy, world, workload: WORKLOAD };
    await expectMeasured({ ...init, activationCheckpointing: true });
    await expectMeasured({ ...init, precision: "fp16" });
    await expectMeasured({ ...init, workload: { ...WORKLOAD, optimizer: "sgd", momentum: 0.9 } });
    const microbatches = { ...init, workload: { ...WORKLOAD, accumulation: 3 } };
    await expectMeasured(microbatches);
    await expectMeasured({ ...microbatches, precision: "bf16" });
    const fsdp1: Strategy = { name: "", version: "fsdp1", shardingStrategy: "SHARD_GRAD_OP" };
    await expectMeasured({ ...microbatches, strategy: fsdp1 });
  });
});

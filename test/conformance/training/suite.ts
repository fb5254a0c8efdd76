/** FSDP training as any backend must do it: `trainingConformance(name, create)` registers the tests. */
import { describe, expect, test } from "bun:test";
import type { BackendFactory } from "../../../core/contracts/plugin.ts";
import { clipGradNorm } from "../../../core/engine/clip.ts";
import { gatherParameter } from "../../../core/engine/full-tensor.ts";
import { unitsBelow } from "../../../core/engine/shard-module.ts";
import { modulesToWrap, transformerWrap } from "../../../core/engine/wrap-policy.ts";
import { FORMAT, MODEL, ops, optim, registry } from "../../../mod.ts";
import { fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { fixture } from "../../support/command.ts";
import { gpt2TinyJson, type Reference } from "../../support/gpt2-tiny.ts";
import { Stack } from "../../support/models.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";

/** Options of the suite. */
export interface TrainingConformanceOptions {
  /** World sizes. Default 1, 2 and 4. */
  readonly worlds?: readonly number[];
  /** Milliseconds a test may take. Default 60,000. */
  readonly timeout?: number;
}

const ROWS = 4;
const STEPS = 4;

/** Trains a small stack and returns what every rank must agree on. */
async function trainStack(rank: TestRank, shard: boolean) {
  const model = new Stack({ layers: 2, features: 5, width: 6, hidden: 7 });
  if (shard) {
    for (const block of model.blocks) fullyShard(block, { mesh: rank.mesh });
    fullyShard(model, { mesh: rank.mesh });
  }
  await model.to(rank.device);
  const optimizer = new optim.AdamW(model.parameters(), { lr: 0.01 });
  optimizer.initState();
  const losses: number[] = [];
  const peaks: number[] = [];
  const rows = ROWS / rank.worldSize;
  const { memory } = rank.device.backend;
  for (let step = 0; step < STEPS; step++) {
    memory.resetPeak();
    const loss = await rank.device.scope(async () => {
      const x = Array.from({ length: rows }, (_, i) =>
        Array.from({ length: 5 }, (_, j) => Math.sin(1 + (rank.rank * rows + i) * 5 + j + step)),
      );
      const y = rank.device.tensor(x.map((row) => [row[0]! * row[1]!]));
      const error = ops.mseLoss(await model.call(rank.device.tensor(x)), y);
      await error.backward();
      return await error.item();
    });
    await clipGradNorm(model.parameters(), 0.5);
    optimizer.step();
    optimizer.zeroGrad();
    const mean = new Float64Array([loss]);
    await rank.collective.allReduce(mean, "avg", "float64").wait();
    losses.push(mean[0]!);
    peaks.push(memory.report().peakTotal);
  }
  // All at once: however a device orders its answers, ranks must come to the collectives in one order.
  const gathered = await Promise.all(model.parameters().map((parameter) => gatherParameter(parameter)));
  const weights = gathered.map((values) => Array.from(values as Float32Array));
  return { losses, peaks, weights };
}

/** Registers the suite for devices that `create` makes. */
export function trainingConformance(
  name: string,
  create: BackendFactory["create"],
  options: TrainingConformanceOptions = {},
): void {
  const { worlds = [1, 2, 4], timeout = 60_000 } = options;
  describe(`FSDP training on ${name}`, () => {
    for (const worldSize of worlds) {
      test(
        `gives the CPU's unsharded losses and weights on ${worldSize} ranks, with equal peaks in every step`,
        async () => {
          const [reference] = await runRanks(1, (rank) => trainStack(rank, false));
          for (const { losses, weights, peaks } of await runRanks(
            worldSize,
            (rank) => trainStack(rank, true),
            create,
          )) {
            for (const [i, loss] of losses.entries()) expect(loss).toBeCloseTo(reference!.losses[i]!, 4);
            for (const [i, values] of weights.entries()) {
              for (const [j, value] of values.entries())
                expect(value).toBeCloseTo(reference!.weights[i]![j]!, 4);
            }
            expect(new Set(peaks).size).toBe(1);
          }
        },
        timeout,
      );

      test(
        `gives PyTorch's first losses of gpt2-tiny on ${worldSize} ranks`,
        async () => {
          const { losses: expected } = gpt2TinyJson<Reference>("fsdp2.json");
          const results = await runRanks(worldSize, (rank) => trainGpt2Tiny(rank, 3), create);
          for (const losses of results) {
            for (const [i, loss] of losses.entries()) {
              expect(Math.abs(loss - expected[i]!) / expected[i]!).toBeLessThan(2e-4);
            }
          }
        },
        timeout,
      );
    }

    test(
      "is bitwise the same run when it is repeated",
      async () => {
        const once = await runRanks(2, (rank) => trainStack(rank, true), create);
        expect(await runRanks(2, (rank) => trainStack(rank, true), create)).toEqual(once);
      },
      timeout,
    );

    test(
      "leaves nothing behind: after a forward without backward, units are sharded and memory is as before",
      async () => {
        await runRanks(
          2,
          async (rank) => {
            const model = new Stack({ layers: 1, features: 3, width: 4, hidden: 4 });
            for (const module of [model.blocks[0]!, model]) fullyShard(module, { mesh: rank.mesh });
            await model.to(rank.device);
            const before = rank.device.backend.memory.report().currentTotal;
            await rank.device.noGrad(() =>
              rank.device.scope(async () => void (await model.call(rank.device.ones([2, 3])))),
            );
            await rank.device.backend.flush();
            expect(rank.device.backend.memory.report().currentTotal).toBe(before);
            for (const unit of unitsBelow(model)) expect(unit.state).toBe("sharded");
          },
          create,
        );
      },
      timeout,
    );
  });
}

/** Losses of the first steps of the reference run, averaged over ranks. */
async function trainGpt2Tiny(rank: TestRank, steps: number): Promise<number[]> {
  const safetensors = registry.get(FORMAT, "safetensors");
  const weights = await safetensors.open(fixture("gpt2-tiny/model/model.safetensors"));
  const tokens = await safetensors.open(fixture("gpt2-tiny/tokens.safetensors"));
  try {
    const { module, blockClasses } = registry
      .get(MODEL, "gpt2")
      .create(gpt2TinyJson("model/config.json"), weights);
    for (const block of modulesToWrap(module, transformerWrap(module, blockClasses)))
      fullyShard(block, { mesh: rank.mesh });
    await fullyShard(module, { mesh: rank.mesh }).to(rank.device);
    const optimizer = new optim.AdamW(module.parameters(), {
      lr: 1e-3,
      betas: [0.9, 0.95],
      weightDecay: 0.1,
    });
    const rows = 4 / rank.worldSize;
    const losses: number[] = [];
    for (let step = 0; step < steps; step++) {
      const box = { offsets: [step, rank.rank * rows, 0], sizes: [1, rows, 33] };
      const ids = Array.from((await tokens.read("tokens", box)) as BigInt64Array, Number);
      const part = (shift: number) => {
        const values = Array.from({ length: rows }, (_, row) =>
          ids.slice(row * 33 + shift, row * 33 + shift + 32),
        );
        return rank.device.tensor(Int32Array.from(values.flat()), { shape: [rows, 32] });
      };
      const loss = await rank.device.scope(async () => {
        const mean = await module.call(part(0), part(1));
        await mean.backward();
        return await mean.item();
      });
      await clipGradNorm(module.parameters(), 1);
      optimizer.step();
      optimizer.zeroGrad();
      const mean = new Float64Array([loss]);
      await rank.collective.allReduce(mean, "avg", "float64").wait();
      losses.push(mean[0]!);
    }
    return losses;
  } finally {
    await weights.close();
    await tokens.close();
  }
}

/** PyTorch's test_fsdp_misc, test_fsdp_exec_order, test_fsdp_multiple_forward, test_fsdp_freezing_weights, test_fsdp_memory: steps that are not like the others. */
import { describe, expect, test } from "bun:test";
import { unitsBelow } from "../../../core/engine/shard-module.ts";
import { checkpoint } from "../../../core/nn/activation-checkpoint.ts";
import { Linear, Module } from "../../../core/nn/mod.ts";
import { AdamW } from "../../../core/optim/mod.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { FullyShardedDataParallel } from "../../../plugins/fsdp1/mod.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import { batch, failure, type Options, pass, sharded, stack, wrapBlocks } from "./harness.ts";

/** Two ways through four layers, one of which a pass may leave out. */
class Branches extends Module<[x: Tensor, order: readonly number[]], Tensor[]> {
  readonly layers: readonly Linear[] = Array.from({ length: 4 }, () => new Linear(5, 5));

  override async forward(x: Tensor, order: readonly number[]): Promise<Tensor[]> {
    const outputs: Tensor[] = [];
    let states = x;
    for (const i of order) {
      states = await this.layers[i]!.call(states);
      outputs.push(states);
    }
    return outputs;
  }
}

async function branches(rank: TestRank, options: Options = {}) {
  const fsdp = new FullyShardedDataParallel(new Branches(), {
    mesh: rank.mesh,
    autoWrapPolicy: (module) => module instanceof Linear,
    useOrigParams: true,
    onWarning: () => {},
    ...options,
  });
  return await fsdp.to(rank.device);
}

const norms = async (fsdp: FullyShardedDataParallel<Branches>, rank: TestRank): Promise<number[]> => {
  const sums = new Float64Array(4);
  for (const [i, layer] of fsdp.module.layers.entries()) {
    for (const { grad } of layer.parameters()) {
      for (const value of grad === undefined ? [] : ((await grad.data()) as Float32Array))
        sums[i]! += value * value;
    }
  }
  await rank.collective.allReduce(sums, "sum", "float64").wait();
  return Array.from(sums, Math.sqrt);
};

describe("a step", () => {
  test("may leave outputs unused: units that the loss does not reach get no gradient and are sharded afterwards", async () => {
    for (const worldSize of [1, 2, 3]) {
      for (const shardingStrategy of ["FULL_SHARD", "SHARD_GRAD_OP"] as const) {
        await runRanks(worldSize, async (rank) => {
          const fsdp = await branches(rank, { shardingStrategy });
          for (let step = 0; step < 6; step++) {
            await rank.device.scope(async () => {
              const [, second] = await fsdp.call(batch(rank, step).x, [0, 1, 2, 3]);
              await ops.sum(second!).backward();
            });
            const [a, b, c, d] = await norms(fsdp, rank);
            expect(a! > 0 && b! > 0).toBe(true);
            expect([c, d]).toEqual([0, 0]);
            for (const unit of unitsBelow(fsdp)) expect(unit.state).toBe("sharded");
            new AdamW(fsdp.parameters(), { lr: 0.01 }).zeroGrad();
          }
        });
      }
    }
  });

  test("may go another way than the one before, whatever was gathered ahead", async () => {
    const run = (options: Options) =>
      runRanks(2, async (rank) => {
        const fsdp = await branches(rank, options);
        const seen: number[][] = [];
        for (const order of [[0, 1, 2, 3], [3, 1], [2, 2, 0], [0, 1, 2, 3], [1]]) {
          await rank.device.scope(async () => {
            const outputs = await fsdp.call(batch(rank, 0).x, order);
            await ops.sum(outputs.at(-1)!).backward();
          });
          seen.push(await norms(fsdp, rank));
          for (const parameter of fsdp.parameters()) {
            parameter.grad?.dispose();
            parameter.grad = undefined;
          }
        }
        return seen;
      });
    const plain = await run({ backwardPrefetch: "NO_PREFETCH" });
    expect(await run({ forwardPrefetch: true })).toEqual(plain);
    expect(await run({ forwardPrefetch: true, backwardPrefetch: "BACKWARD_POST" })).toEqual(plain);
    expect(await run({ shardingStrategy: "SHARD_GRAD_OP", forwardPrefetch: true })).toEqual(plain);
  });

  test("may come after an evaluation, and evaluates to the same without recording", async () => {
    await runRanks(2, async (rank) => {
      for (const shardingStrategy of ["FULL_SHARD", "SHARD_GRAD_OP"] as const) {
        const fsdp = await sharded(rank, { shardingStrategy });
        const out = async () => Array.from(await (await fsdp.call(batch(rank, 0).x)).data(), Number);
        const quiet = await rank.device.noGrad(() => rank.device.scope(out));
        expect(await rank.device.scope(out)).toEqual(quiet);
        await pass(rank, fsdp, 0);
        expect(await rank.device.noGrad(() => rank.device.scope(out))).toEqual(quiet);
      }
    });
  });

  test("may freeze and thaw parameters between passes", async () => {
    await runRanks(3, async (rank) => {
      const fsdp = await sharded(rank, { useOrigParams: true });
      const [first, second] = fsdp.module.blocks;
      for (const frozen of [true, false, true]) {
        for (const parameter of first!.parameters()) parameter.requiresGrad = !frozen;
        await pass(rank, fsdp, 0);
        expect(first!.parameters().every(({ grad }) => (grad === undefined) === frozen)).toBe(true);
        expect(second!.parameters().every(({ grad }) => grad !== undefined)).toBe(true);
        new AdamW(fsdp.parameters(), { lr: 1 }).zeroGrad();
      }
    });
  });

  test("that failed leaves nothing gathered, and the next one works", async () => {
    await runRanks(2, async (rank) => {
      const fsdp = await sharded(rank);
      await pass(rank, fsdp, 0);
      const first = await fsdp.clipGradNorm(1e9);
      const before = rank.device.backend.memory.report().currentTotal;
      const attempt = rank.device.scope(async () => await fsdp.call(rank.device.zeros([2, 3])));
      expect((await failure(attempt)).message).toMatch(/linear\(\) failed/);
      for (const unit of unitsBelow(fsdp)) expect(unit.state).toBe("sharded");
      expect(rank.device.backend.memory.report().currentTotal).toBe(before);
      new AdamW(fsdp.parameters(), { lr: 1 }).zeroGrad();
      await pass(rank, fsdp, 0);
      expect(await fsdp.clipGradNorm(1e9)).toBe(first);
    });
  });
});

test("recomputed activations change no bit, whether a block is checkpointed before or after it is sharded", async () => {
  for (const useOrigParams of [true, false]) {
    for (const worldSize of [1, 3]) {
      const run = (when: "never" | "before" | "after") =>
        runRanks(worldSize, async (rank) => {
          const model = stack();
          const again = () => model.blocks.forEach((block) => void checkpoint(block));
          if (when === "before") again();
          const options = { mesh: rank.mesh, autoWrapPolicy: wrapBlocks, useOrigParams, onWarning: () => {} };
          const fsdp = await new FullyShardedDataParallel(model, options).to(rank.device);
          if (when === "after") again();
          return [await pass(rank, fsdp, 0), await fsdp.clipGradNorm(1)];
        });
      const plain = await run("never");
      expect(await run("before")).toEqual(plain);
      expect(await run("after")).toEqual(plain);
    }
  }
});

test("an optimizer may take its step as soon as a parameter's gradient is there", async () => {
  for (const useOrigParams of [true, false]) {
    const run = (early: boolean) =>
      runRanks(2, async (rank) => {
        const fsdp = await sharded(rank, { useOrigParams });
        const optimizers = fsdp.parameters().map((parameter) => {
          const optimizer = new AdamW([parameter], { lr: 0.01 });
          const step = () => {
            optimizer.step();
            optimizer.zeroGrad();
          };
          if (early) parameter.postAccumulateGradHook = step;
          return step;
        });
        for (let i = 0; i < 3; i++) {
          await pass(rank, fsdp, i);
          for (const { grad } of fsdp.parameters()) expect(grad === undefined).toBe(early);
          if (!early) for (const step of optimizers) step();
        }
        return await fsdp.stateDict();
      });
    expect(await run(true)).toEqual(await run(false));
  }
});

test("padding has no part in anything: with NaN in it, losses, norms and weights are the same bits", async () => {
  const run = (poison: boolean, useOrigParams: boolean) =>
    runRanks(4, async (rank) => {
      const fsdp = await sharded(rank, { useOrigParams });
      for (const unit of poison ? unitsBelow(fsdp) : []) {
        const [flat] = unit.shards.flats;
        const held = new Set<number>();
        for (const { shardOffset, sizes } of unit.layouts[0]!.pieces(rank.rank)) {
          const numel = sizes.reduce((a, b) => a * b, 1);
          for (let i = 0; i < numel; i++) held.add(shardOffset + i);
        }
        const values = (await flat!.data()) as Float32Array;
        for (const i of values.keys()) if (!held.has(i)) values[i] = Number.NaN;
        flat!.device.backend.write(flat!.span, values);
      }
      const optimizer = new AdamW(fsdp.parameters(), { lr: 0.01, weightDecay: 0.1 });
      const seen: number[] = [];
      for (let step = 0; step < 3; step++) {
        seen.push(await pass(rank, fsdp, step), await fsdp.clipGradNorm(0.5));
        optimizer.step();
        optimizer.zeroGrad();
      }
      return { seen, dict: await fsdp.stateDict(), optim: await fsdp.optimStateDict(optimizer) };
    });
  for (const useOrigParams of [true, false])
    expect(await run(true, useOrigParams)).toEqual(await run(false, useOrigParams));
});

describe("memory", () => {
  test("peaks at the same bytes in every step, and SHARD_GRAD_OP's peak is the higher one", async () => {
    const peaks = async (options: Options) => {
      const [result] = await runRanks(4, async (rank) => {
        const fsdp = await sharded(rank, options);
        const optimizer = new AdamW(fsdp.parameters(), { lr: 0.01 });
        optimizer.initState();
        const seen: number[] = [];
        for (let step = 0; step < 4; step++) {
          rank.device.backend.memory.resetPeak();
          await pass(rank, fsdp, step);
          optimizer.step();
          optimizer.zeroGrad();
          seen.push(rank.device.backend.memory.report().peakState);
        }
        return seen;
      });
      expect(new Set(result).size).toBe(1);
      return result![0]!;
    };
    for (const useOrigParams of [true, false]) {
      const full = await peaks({ useOrigParams });
      expect(await peaks({ useOrigParams, shardingStrategy: "SHARD_GRAD_OP" })).toBeGreaterThan(full);
    }
  });

  test("of a forward pass holds the root's parameters and those of one unit", async () => {
    await runRanks(4, async (rank) => {
      const fsdp = await sharded(rank, { autoWrapPolicy: wrapBlocks });
      const { memory } = rank.device.backend;
      const shards = memory.report().current.parameter;
      memory.resetPeak();
      await rank.device.noGrad(() =>
        rank.device.scope(async () => {
          await fsdp.call(batch(rank, 0).x);
        }),
      );
      const bytes = fsdp.handles.map(({ shardNumel }) => 4 * 4 * shardNumel);
      expect(memory.report().peak.parameter).toBeLessThanOrEqual(shards + bytes[0]! + bytes[1]!);
      expect(memory.report().current.parameter).toBe(shards);
    });
  });
});

/** PyTorch's test_fsdp_core TestParityWithDDP, test_fsdp_uneven, test_fsdp_hybrid_shard (parity). */
import { describe, expect, test } from "bun:test";
import { cpuBackend } from "../../../backends/cpu/mod.ts";
import type { BackendFactory } from "../../../core/contracts/plugin.ts";
import { clipGradNorm } from "../../../core/engine/clip.ts";
import { gatherLike } from "../../../core/engine/full-tensor.ts";
import { alwaysWrap, noWrap } from "../../../core/engine/wrap-policy.ts";
import { Linear, type Parameter } from "../../../core/nn/mod.ts";
import { AdamW, SGD } from "../../../core/optim/mod.ts";
import { initDeviceMesh } from "../../../core/runtime/device-mesh.ts";
import { Device } from "../../../core/tensor/device.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import {
  type BackwardPrefetch,
  FullyShardedDataParallel,
  type ShardingStrategy,
} from "../../../plugins/fsdp1/mod.ts";
import { fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { runRanks } from "../../support/ranks.ts";
import { remote } from "../../support/remote-backend.ts";
import {
  batch,
  expectSame,
  lossOf,
  mean,
  pass,
  sharded,
  stack,
  train,
  trainPlain,
  wrapBlocks,
} from "./harness.ts";

const STRATEGIES: readonly ShardingStrategy[] = [
  "FULL_SHARD",
  "SHARD_GRAD_OP",
  "NO_SHARD",
  "HYBRID_SHARD",
  "HYBRID_SHARD_ZERO2",
];
const PREFETCHES: readonly BackwardPrefetch[] = ["BACKWARD_PRE", "BACKWARD_POST", "NO_PREFETCH"];
const [reference] = await runRanks(1, (rank) => trainPlain(rank));

describe("training", () => {
  for (const shardingStrategy of STRATEGIES) {
    for (const worldSize of [1, 2, 3, 4]) {
      test(`gives the unsharded losses, norms and weights with ${shardingStrategy} on ${worldSize} ranks`, async () => {
        for (const useOrigParams of [true, false]) {
          const runs = await runRanks(worldSize, (rank) => train(rank, { shardingStrategy, useOrigParams }));
          for (const run of runs) expectSame(run, reference!);
        }
      });
    }
  }

  test("does not depend on the wrapping: no units but the root's, or every layer one", async () => {
    for (const autoWrapPolicy of [noWrap, alwaysWrap]) {
      for (const run of await runRanks(3, (rank) => train(rank, { autoWrapPolicy })))
        expectSame(run, reference!);
    }
  });

  test("does not change in a bit with what is gathered ahead, and when", async () => {
    const once = await runRanks(2, (rank) => train(rank));
    for (const backwardPrefetch of PREFETCHES) {
      for (const forwardPrefetch of [false, true]) {
        for (const limitAllGathers of [false, true]) {
          const options = { backwardPrefetch, forwardPrefetch, limitAllGathers };
          expect(await runRanks(2, (rank) => train(rank, options))).toEqual(once);
        }
      }
    }
  });

  test("does not change in a bit when it is repeated, nor when devices answer late", async () => {
    const create: BackendFactory["create"] = async (options) =>
      remote(await cpuBackend.create({ ...options, settings: { matmul: "plain" } }));
    for (const shardingStrategy of ["FULL_SHARD", "SHARD_GRAD_OP", "HYBRID_SHARD"] as const) {
      const once = await runRanks(4, (rank) => train(rank, { shardingStrategy }));
      expect(await runRanks(4, (rank) => train(rank, { shardingStrategy }))).toEqual(once);
      expect(await runRanks(4, (rank) => train(rank, { shardingStrategy }), create)).toEqual(once);
    }
  });

  test("gives the same with shards, gradients and optimizer state offloaded", async () => {
    for (const useOrigParams of [true, false]) {
      const runs = await runRanks(3, async (rank) => {
        const home = await cpuBackend.create({
          localWorldSize: 3,
          rank: rank.rank,
          settings: { matmul: "plain" },
        });
        try {
          const device = new Device(home, { seed: 7, rank: rank.rank });
          const run = await train(rank, { useOrigParams, cpuOffload: { offloadParams: true, device } });
          return {
            run,
            optimizer: [home, rank.device.backend].map(
              (backend) => backend.memory.report().current.optimizer,
            ),
          };
        } finally {
          await home.dispose();
        }
      });
      for (const { run, optimizer } of runs) {
        expectSame(run, reference!);
        expect(optimizer[0]).toBeGreaterThan(0);
        expect(optimizer[1]).toBe(0);
      }
    }
  });

  test("gives FSDP2's losses over 20 steps within 1e-6, on worlds that are powers of two", async () => {
    for (const worldSize of [1, 2, 4]) {
      const [one] = await runRanks(worldSize, (rank) => train(rank, {}, 20));
      const [two] = await runRanks(worldSize, async (rank) => {
        const model = stack();
        for (const block of model.blocks) fullyShard(block, { mesh: rank.mesh });
        await fullyShard(model, { mesh: rank.mesh }).to(rank.device);
        const optimizer = new AdamW(model.parameters(), { lr: 0.01, weightDecay: 0.1 });
        const losses: number[] = [];
        for (let step = 0; step < 20; step++) {
          const own = await rank.device.scope(async () => {
            const loss = await lossOf(model, batch(rank, step));
            await loss.backward();
            return await loss.item();
          });
          losses.push(await mean(rank, own));
          await clipGradNorm(model.parameters(), 0.5);
          optimizer.step();
          optimizer.zeroGrad();
        }
        return losses;
      });
      for (const [i, loss] of one!.losses.entries())
        expect(Math.abs(loss - two![i]!) / two![i]!).toBeLessThan(1e-6);
    }
  });
});

test("gradients are FSDP2's to the bit on worlds that are powers of two, and within rounding on others", async () => {
  const whole = (parameters: readonly Parameter[]) =>
    Promise.all(
      parameters.map(
        async (parameter) => (await gatherLike(parameter, parameter.grad!, true)) as Float32Array,
      ),
    );
  for (const worldSize of [1, 2, 3, 4]) {
    const [pair] = await runRanks(worldSize, async (rank) => {
      const one = await sharded(rank, { useOrigParams: true });
      await pass(rank, one, 0);
      const two = stack();
      for (const block of two.blocks) fullyShard(block, { mesh: rank.mesh });
      await fullyShard(two, { mesh: rank.mesh }).to(rank.device);
      await pass(rank, two, 0);
      return [await whole(one.parameters()), await whole(two.parameters())] as const;
    });
    const [one, two] = pair!;
    if (worldSize !== 3) expect(one).toEqual(two);
    for (const [i, values] of one.entries()) {
      for (const [j, value] of values.entries()) expect(value).toBeCloseTo(two[i]![j]!, 6);
    }
  }
});

test("a mesh of one rank in either dim is as good as none", async () => {
  for (const shape of [
    [4, 1],
    [1, 4],
  ]) {
    const runs = await runRanks(4, async (rank) => {
      const mesh = await initDeviceMesh(rank.collective, shape);
      const options = { mesh, shardingStrategy: "HYBRID_SHARD", autoWrapPolicy: wrapBlocks } as const;
      const fsdp = await new FullyShardedDataParallel(stack(), options).to(rank.device);
      await pass(rank, fsdp, 0);
      return await fsdp.clipGradNorm(1);
    });
    for (const norm of runs) expect(norm).toBeCloseTo(reference!.norms[0]!, 5);
  }
});

test("a 3x3 weight, which no two ranks share evenly, goes one step of SGD as the formula says", async () => {
  for (const worldSize of [1, 2, 3, 4]) {
    await runRanks(worldSize, async ({ device, mesh, rank }) => {
      const linear = new Linear(3, 3, { bias: false });
      const weight = Array.from({ length: 9 }, (_, i) => i + 1);
      linear.weight.initializer = ({ box, out, shape }) => {
        const [row, column] = box.offsets as [number, number];
        for (let i = 0; i < out.length; i++) {
          const width = box.sizes[1]!;
          out[i] = weight[(row + Math.floor(i / width)) * shape[1]! + column + (i % width)]!;
        }
      };
      const fsdp = await new FullyShardedDataParallel(linear, { mesh, onWarning: () => {} }).to(device);
      const optimizer = new SGD(fsdp.parameters(), { lr: 0.1 });
      await device.scope(async () => {
        const out = await fsdp.call(device.tensor([[1, 2, 3].map((x) => x * (rank + 1))]));
        // x W^T, of x = (rank + 1) (1, 2, 3).
        expect(Array.from(await out.data(), Number)).toEqual([14, 32, 50].map((y) => y * (rank + 1)));
        await ops.sum(out).backward();
      });
      optimizer.step();
      // Every row's gradient is the ranks' mean input.
      const factor = (worldSize + 1) / 2;
      const { weight: after } = await fsdp.stateDict();
      const wanted = weight.map((value, i) => value - 0.1 * factor * ((i % 3) + 1));
      for (const [i, value] of Array.from(after!.data, Number).entries())
        expect(value).toBeCloseTo(wanted[i]!, 5);
    });
  }
});

import { describe, expect, test } from "bun:test";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { unitsBelow } from "../../../core/engine/sharded-modules.ts";
import { traceUnits } from "../../../core/engine/trace.ts";
import type { UnitEvent } from "../../../core/engine/unit-events.ts";
import { Linear } from "../../../core/nn/mod.ts";
import { initDeviceMesh } from "../../../core/runtime/device-mesh.ts";
import { Device } from "../../../core/tensor/device.ts";
import { type FSDPModule, type FullyShardOptions, fullyShard } from "../../../plugins/fsdp2/mod.ts";
import type { Stack } from "../../support/models.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import { remote } from "../../support/remote-backend.ts";
import { expectSame, forwardBackward, smallStack, trainedAlone, trainStack } from "../../support/training.ts";

function shardAll(model: Stack, options: FullyShardOptions): Stack & FSDPModule {
  for (const block of model.blocks) fullyShard(block, options);
  return fullyShard(model, options);
}

const reference = await trainedAlone();
const gridOf = (rank: TestRank, shape: readonly number[]) =>
  initDeviceMesh(rank.collective, shape, { dimNames: ["replicate", "shard"] });

describe("hybrid sharding", () => {
  for (const shape of [
    [1, 1],
    [1, 2],
    [2, 1],
    [3, 1],
    [2, 2],
    [4, 1],
    [1, 4],
  ]) {
    test(`trains on a mesh of ${shape.join(" x ")} as one rank alone does`, async () => {
      const results = await runRanks(shape[0]! * shape[1]!, async (rank) => {
        const mesh = await gridOf(rank, shape);
        return await trainStack(rank, { shard: (model) => void shardAll(model, { mesh }) });
      });
      expectSame(results, reference);
    });
  }

  test("goes through memory that the host does not see", async () => {
    const far = (rank: TestRank) => ({
      ...rank,
      device: new Device(remote(rank.device.backend), { seed: 7 }),
    });
    const hybrid = await runRanks(4, async (rank) => {
      const mesh = await gridOf(rank, [2, 2]);
      return await trainStack(far(rank), { shard: (model) => void shardAll(model, { mesh }) });
    });
    expectSame(hybrid, reference);
    const kept = await runRanks(4, (rank) =>
      trainStack(far(rank), {
        shard: (model) => void shardAll(model, { mesh: rank.mesh, reshardAfterForward: 2 }),
      }),
    );
    expectSame(kept, reference);
  });

  test("cuts over the second dim, and reduces over the first what was scattered over the second", async () => {
    await runRanks(4, async (rank) => {
      const mesh = await gridOf(rank, [2, 2]);
      const model = smallStack(1);
      shardAll(model, { mesh });
      await model.to(rank.device);
      expect(model.inner.weight.local.shape).toEqual([3, 5]);
      const events: UnitEvent[] = [];
      traceUnits(model, (event) => events.push(event));
      await forwardBackward(rank, model, 0);
      const collectives = events.filter((event) => "numel" in event);
      const count = (kind: string) => collectives.filter((event) => event.kind === kind);
      expect(count("allGather").map(({ ranks }) => ranks)).toEqual([2, 2, 2]);
      expect(count("reduceScatter").length).toBe(2);
      expect(count("allReduce").map(({ ranks, numel }) => [ranks, numel])).toEqual(
        count("reduceScatter").map(({ numel }) => [2, numel / 2]),
      );
    });
  });

  test("keeps partial sums on the rank until a reduction includes the replicas", async () => {
    const gradients = (deferred: boolean) =>
      runRanks(4, async (rank) => {
        const mesh = await gridOf(rank, [2, 2]);
        const model = shardAll(smallStack(2), { mesh });
        await model.to(rank.device);
        for (let micro = 0; micro < 3; micro++) {
          model.setRequiresAllReduce(!deferred || micro === 2);
          await forwardBackward(rank, model, micro);
          if (deferred && micro < 2) expect(model.inner.weight.grad).toBeUndefined();
        }
        return await Promise.all(
          model.parameters().map(async ({ grad }) => Array.from(await grad!.data(), Number)),
        );
      });
    const each = await gradients(false);
    for (const [r, values] of (await gradients(true)).entries()) {
      for (const [i, gradient] of values.entries()) {
        for (const [j, value] of gradient.entries()) expect(value).toBeCloseTo(each[r]![i]![j]!, 5);
      }
    }
  });

  test("adds partial sums of other parameters than the last reduction has", async () => {
    await runRanks(2, async (rank) => {
      const mesh = await gridOf(rank, [2, 1]);
      const model = fullyShard(smallStack(1), { mesh });
      await model.to(rank.device);
      model.setRequiresAllReduce(false);
      await forwardBackward(rank, model, 0);
      model.setRequiresAllReduce(true);
      model.inner.weight.requiresGrad = false;
      await forwardBackward(rank, model, 1);
      const other = fullyShard(smallStack(1), { mesh });
      await other.to(rank.device);
      await forwardBackward(rank, other, 0);
      const [late, early] = [model.inner.weight.grad!, other.inner.weight.grad!];
      expect(await late.data()).toEqual(await early.data());
      expect(model.outer.weight.grad).toBeDefined();
    });
  });
});

describe("reshardAfterForward as a number", () => {
  for (const [worldSize, count] of [
    [2, 1],
    [2, 2],
    [4, 2],
    [6, 2],
    [6, 3],
  ] as const) {
    test(`${count} of ${worldSize} ranks trains as one rank alone does, with the last gather among the neighbours`, async () => {
      const results = await runRanks(worldSize, async (rank) => {
        const ranks: number[] = [];
        const trained = await trainStack(rank, {
          shard: (model) => void shardAll(model, { mesh: rank.mesh, reshardAfterForward: count }),
          beforeStep: (model) =>
            void traceUnits(model, (event) => {
              if (event.kind === "allGather") ranks.push(event.ranks);
            }),
        });
        const backward = count === 1 ? [] : new Array<number>(4).fill(count);
        expect(ranks.slice(0, 4 + backward.length)).toEqual([
          ...new Array<number>(4).fill(worldSize),
          ...backward,
        ]);
        return trained;
      });
      expectSame(results, reference);
    });
  }

  test("keeps its part between forward and backward only", async () => {
    await runRanks(4, async (rank) => {
      const model = smallStack(2);
      shardAll(model, { mesh: rank.mesh, reshardAfterForward: 2 });
      await model.to(rank.device);
      const { memory } = rank.device.backend;
      const before = memory.report().current.parameter;
      const whole = unitsBelow(model).reduce((sum, unit) => sum + 4 * unit.shardNumel * 4, 0);
      await rank.device.scope(async () => {
        const out = await model.call(rank.device.ones([2, 5]));
        expect(memory.report().current.parameter - before).toBe(whole / 2);
        await out.backward({ gradient: rank.device.ones([2, 1]) });
        expect(memory.report().current.parameter).toBe(before);
      });
      await rank.device.noGrad(() =>
        rank.device.scope(async () => void (await model.call(rank.device.ones([2, 5])))),
      );
      expect(memory.report().current.parameter).toBe(before);
    });
  });

  test("refuses numbers that do not divide the shard group", async () => {
    await runRanks(4, async ({ mesh }) => {
      for (const reshardAfterForward of [3, 0, -1, 8, 1.5, Number.NaN]) {
        expect(() => fullyShard(new Linear(2, 2), { mesh, reshardAfterForward })).toThrow(ConfigError);
      }
    });
  });
});

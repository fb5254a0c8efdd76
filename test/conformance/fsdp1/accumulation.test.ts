/** PyTorch's test_fsdp_grad_acc: gradients of several batches add up to those of their concatenation. */
import { describe, expect, test } from "bun:test";
import { cpuBackend } from "../../../backends/cpu/mod.ts";
import type { Parameter } from "../../../core/nn/parameter.ts";
import { Device } from "../../../core/tensor/device.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import { batch, failure, lossOf, type Options, sharded } from "./harness.ts";

/** Batches, and whether each is inside noSync. */
type Sequence = readonly boolean[];

const SEQUENCES: readonly Sequence[] = [
  [true, true, false],
  [true, true, true, false, false, false, true, true, true, false],
  [false, false],
];

/** Whole gradients after a sequence, and after one pass over all its batches at once. */
async function gradients(rank: TestRank, options: Options, sequence: Sequence) {
  const one = await sharded(rank, options);
  for (const [step, apart] of sequence.entries()) {
    const backward = () =>
      rank.device.scope(async () => {
        await (await lossOf(one, batch(rank, step))).backward();
      });
    if (apart) await one.noSync(backward);
    else await backward();
  }
  const all = await sharded(rank, options);
  await rank.device.scope(async () => {
    const losses = await Promise.resolve(sequence.map((_, step) => batch(rank, step)));
    const x = ops.concat(
      losses.map((each) => each.x),
      0,
    );
    const y = ops.concat(
      losses.map((each) => each.y),
      0,
    );
    const loss = await lossOf(all, { x, y });
    await loss.backward({ gradient: rank.device.full([], sequence.length) });
  });
  const read = (parameters: readonly Parameter[]) =>
    Promise.all(
      parameters.map(async ({ grad, local }) => {
        expect([grad!.numel, grad!.dtype]).toEqual([local.numel, local.dtype]);
        return Array.from(await grad!.data(), Number);
      }),
    );
  return { some: await read(one.parameters()), once: await read(all.parameters()) };
}

function expectEqual({ some, once }: Awaited<ReturnType<typeof gradients>>): void {
  for (const [i, values] of some.entries()) {
    for (const [j, value] of values.entries()) expect(value).toBeCloseTo(once[i]![j]!, 4);
  }
}

describe("gradients inside and outside of noSync, in any order, are those of all batches at once", () => {
  for (const shardingStrategy of ["FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD"] as const) {
    test(`with ${shardingStrategy}`, async () => {
      for (const sequence of SEQUENCES) {
        for (const useOrigParams of [true, false]) {
          const worldSize = shardingStrategy === "HYBRID_SHARD" ? 4 : 3;
          const options = { shardingStrategy, useOrigParams };
          for (const result of await runRanks(worldSize, (rank) => gradients(rank, options, sequence))) {
            expectEqual(result);
          }
        }
      }
    });
  }

  test("with offloaded shards, outside of noSync too, where PyTorch's are wrong", async () => {
    for (const sequence of SEQUENCES) {
      await runRanks(2, async (rank) => {
        const home = await cpuBackend.create({
          localWorldSize: 2,
          rank: rank.rank,
          settings: { matmul: "plain" },
        });
        const device = new Device(home, { seed: 7, rank: rank.rank });
        expectEqual(await gradients(rank, { cpuOffload: { offloadParams: true, device } }, sequence));
        await home.dispose();
      });
    }
  });
});

test("noSync ends where it began: one inside another ends the inner one alone", async () => {
  await runRanks(2, async (rank) => {
    const fsdp = await sharded(rank);
    const reductions = () => rank.calls.filter((name) => name === "reduceScatter").length;
    const backward = () =>
      rank.device.scope(async () => {
        await (await lossOf(fsdp, batch(rank, 0))).backward();
      });
    await fsdp.noSync(async () => {
      await fsdp.noSync(backward);
      await backward();
      expect(reductions()).toBe(0);
    });
    expect((await failure(fsdp.noSync(() => Promise.reject(new RangeError("stop"))))).message).toContain(
      "stop",
    );
    await backward();
    expect(reductions()).toBe(3);
  });
});

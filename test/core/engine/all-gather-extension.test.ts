import { describe, expect, test } from "bun:test";
import { ShapeError } from "../../../core/contracts/errors.ts";
import { traceUnits } from "../../../core/engine/trace.ts";
import { type AllGatherExtension, Linear } from "../../../core/nn/mod.ts";
import { SGD } from "../../../core/optim/mod.ts";
import { initDeviceMesh } from "../../../core/runtime/device-mesh.ts";
import { Device } from "../../../core/tensor/device.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import { fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import { remote } from "../../support/remote-backend.ts";

/** Gathers one byte an element, and the factor by which each rank scaled its own: what an 8-bit format would. */
function bytes(log: string[] = []): AllGatherExtension<string> {
  return {
    preAllGather(shard, { device, name, paramDtype }) {
      const { backend } = device;
      using largest = device.allocate([1], "float32");
      backend.kernels.normPower(shard.span, largest.span, Number.POSITIVE_INFINITY);
      const scale = device.allocate([1], "float32");
      backend.kernels.affine(largest.span, scale.span, 1 / 100, 1e-6);
      using scaled = device.allocate([shard.numel], "float32");
      const [left, right] = [
        { span: shard.span, strides: [1] },
        { span: scale.span, strides: [0] },
      ];
      backend.kernels.binary("div", left, right, scaled.span, [shard.numel]);
      backend.kernels.affine(scaled.span, scaled.span, 1, 100.5);
      const codes = device.allocate([shard.numel], "uint8");
      backend.kernels.cast(scaled.span, codes.span);
      log.push(`pre ${name} ${shard.numel} ${paramDtype}`);
      return { inputs: [codes, scale], metadata: "told" };
    },
    postAllGather([codes, scales], metadata, { device, group, shape, name }) {
      log.push(`post ${name} ${codes!.numel} ${scales!.numel} ${metadata}`);
      const { backend } = device;
      const numel = shape.reduce((a, b) => a * b, 1);
      using values = device.allocate([codes!.numel], "float32");
      backend.kernels.cast(codes!.span, values.span);
      backend.kernels.affine(values.span, values.span, 1, -100);
      const rows = codes!.numel / group.size;
      const scale = { span: scales!.span, strides: [1, 0] };
      backend.kernels.binary("mul", { span: values.span, strides: [rows, 1] }, scale, values.span, [
        group.size,
        rows,
      ]);
      return values.alias(shape.length === 0 ? [] : [numel]);
    },
  };
}

/** A linear layer's outputs and weights over some steps, and what was gathered. */
async function train(rank: TestRank, extended: boolean, shape: readonly number[]) {
  const log: string[] = [];
  const model = new Linear(4, 5);
  if (extended) model.weight.allGatherExtension = bytes(log);
  const mesh = await initDeviceMesh(rank.collective, shape);
  fullyShard(model, { mesh, reshardAfterForward: true });
  await model.to(rank.device);
  const gathers: unknown[] = [];
  traceUnits(model, (event) => {
    if (event.kind === "allGather") gathers.push([event.dtype, event.numel]);
  });
  const optimizer = new SGD(model.parameters(), { lr: 0.05 });
  const losses: number[] = [];
  for (let step = 0; step < 4; step++) {
    losses.push(
      await rank.device.scope(async () => {
        const loss = ops.mean(ops.pow(await model.call(rank.device.ones([2, 4])), 2));
        await loss.backward();
        return await loss.item();
      }),
    );
    optimizer.step();
    optimizer.zeroGrad();
  }
  expect(model.weight.local.dtype).toBe("float32");
  return { losses, log, gathers };
}

describe("an all-gather extension", () => {
  for (const shape of [[1], [2], [3], [2, 2]]) {
    for (const far of [false, true]) {
      test(`gathers its own bytes in the group's one gather: ${shape.join(" x ")} ranks${far ? ", far memory" : ""}`, async () => {
        const world = shape.reduce((a, b) => a * b, 1);
        const run = (extended: boolean) =>
          runRanks(world, (rank) => {
            const device = far ? new Device(remote(rank.device.backend), { seed: 7 }) : rank.device;
            return train({ ...rank, device }, extended, shape);
          });
        const plain = await run(false);
        const results = await run(true);
        const shards = shape.at(-1)!;
        const rows = Math.ceil(5 / shards);
        for (const [r, { losses, log, gathers }] of results.entries()) {
          // Within the rounding to a hundredth of the largest weight.
          for (const [i, loss] of losses.entries()) {
            expect(Math.abs(loss - plain[r]!.losses[i]!)).toBeLessThan(0.05 * plain[r]!.losses[i]! + 1e-3);
          }
          expect(log.slice(0, 2)).toEqual([
            `pre weight ${rows * 4} float32`,
            `post weight ${rows * 4 * shards} ${shards} told`,
          ]);
          // Bytes, a scale and the bias, each padded to 16 bytes.
          const slice = 16 * Math.ceil((rows * 4) / 16) + 16 + 16 * Math.ceil((rows * 4) / 16);
          expect(new Set(gathers.map((each) => JSON.stringify(each)))).toEqual(
            new Set(shards === 1 ? [] : [JSON.stringify(["uint8", slice])]),
          );
        }
      });
    }
  }

  test("is told when what it gives does not fit, and the parameters are as before", async () => {
    await runRanks(2, async (rank) => {
      const layer = new Linear(4, 5);
      let wrong = true;
      const good = bytes();
      layer.weight.allGatherExtension = {
        ...good,
        postAllGather: (...given) => {
          const whole = good.postAllGather(given[0], String(given[1]), given[2]);
          if (!wrong) return whole;
          using all = whole;
          return all.alias([3]);
        },
      };
      const model = fullyShard(layer, { mesh: rank.mesh });
      await model.to(rank.device);
      const before = rank.device.backend.memory.report().currentTotal;
      for (let i = 0; i < 2; i++) {
        const error = await model.unshard().catch((reason: unknown) => reason);
        expect(error).toBeInstanceOf(ShapeError);
        expect(String(error)).toContain('"weight" failed: its extension gave 3 elements');
      }
      expect(rank.device.backend.memory.report().currentTotal).toBe(before);
      wrong = false;
      await model.unshard();
      expect((await model.weight.data()).length).toBe(20);
    });
  });
});

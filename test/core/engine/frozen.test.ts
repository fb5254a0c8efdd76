import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { unitsBelow } from "../../../core/engine/sharded-modules.ts";
import { traceUnits } from "../../../core/engine/trace.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { fullyShard } from "../../../plugins/fsdp2/mod.ts";
import type { Stack } from "../../support/models.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import {
  batch,
  expectSame,
  forwardBackward,
  smallStack,
  trainedAlone,
  trainStack,
} from "../../support/training.ts";

function shardAll(model: Stack, rank: TestRank): void {
  for (const block of model.blocks) fullyShard(block, { mesh: rank.mesh });
  fullyShard(model, { mesh: rank.mesh });
}

/** Elements that each reduction of a backward pass takes, in order. */
async function reducedNumels(rank: TestRank, model: Stack, step = 0): Promise<number[]> {
  const numels: number[] = [];
  const end = traceUnits(model, (event) => {
    if (event.kind === "reduceScatter") numels.push(event.numel);
  });
  await forwardBackward(rank, model, step);
  end();
  return numels;
}

describe("frozen parameters", () => {
  for (const worldSize of [1, 2, 3, 4]) {
    test(`may change at every step, and train as on one rank alone on ${worldSize} ranks`, async () => {
      const property = fc.asyncProperty(
        fc.array(fc.array(fc.boolean(), { minLength: 12, maxLength: 12 }), { minLength: 2, maxLength: 3 }),
        async (masks) => {
          const beforeStep = (model: Stack, step: number): void => {
            for (const [i, parameter] of model.parameters().entries()) {
              // The last bias stays, so that a loss depends on something.
              parameter.requiresGrad = masks[step]![i] === true || parameter === model.outer.bias;
            }
          };
          const options = { layers: 2, steps: masks.length, beforeStep };
          const results = await runRanks(worldSize, (rank) =>
            trainStack(rank, { ...options, shard: (model) => shardAll(model, rank) }),
          );
          expectSame(results, await trainedAlone(options), 4);
        },
      );
      await fc.assert(property, { numRuns: 6 });
    });
  }

  test("are in no reduction: its elements are those of the trainable ones, padded rows included", async () => {
    await runRanks(2, async (rank) => {
      const model = smallStack(1);
      shardAll(model, rank);
      await model.to(rank.device);
      const [block] = model.blocks;
      // Of up [7, 6] and [7], down [6, 7] and [6]: 4 and 3 rows a rank.
      expect((await reducedNumels(rank, model))[0]).toBe(2 * (4 * 6 + 4 + 3 * 7 + 3));
      block!.up.weight.requiresGrad = false;
      block!.down.bias!.requiresGrad = false;
      expect((await reducedNumels(rank, model))[0]).toBe(2 * (4 + 3 * 7));
      for (const parameter of block!.parameters()) parameter.requiresGrad = false;
      expect((await reducedNumels(rank, model)).length).toBe(1);
      block!.up.weight.requiresGrad = true;
      expect((await reducedNumels(rank, model))[0]).toBe(2 * 4 * 6);
    });
  });
});

describe("forward passes", () => {
  const gradients = (
    worldSize: number,
    shard: boolean,
    run: (rank: TestRank, model: Stack) => Promise<Tensor>,
  ) =>
    runRanks(worldSize, async (rank) => {
      const model = smallStack(2);
      if (shard) shardAll(model, rank);
      await model.to(rank.device);
      await rank.device.scope(async () => {
        await (await run(rank, model)).backward();
      });
      const sums: (readonly [string, number])[] = [];
      for (const [name, { grad }] of model.namedParameters()) {
        if (grad === undefined) continue;
        const sum = Float64Array.of(((await grad.data()) as Float32Array).reduce((a, b) => a + b * b, 0));
        await rank.collective.allReduce(sum, "sum", "float64").wait();
        sums.push([name, sum[0]!]);
      }
      for (const unit of unitsBelow(model)) expect(unit.state).toBe("sharded");
      return sums;
    });

  const agree = async (run: (rank: TestRank, model: Stack) => Promise<Tensor>) => {
    const [alone] = await gradients(1, false, run);
    for (const worldSize of [1, 2, 3]) {
      for (const sums of await gradients(worldSize, true, run)) {
        expect(sums.map(([name]) => name)).toEqual(alone!.map(([name]) => name));
        for (const [i, [, sum]] of sums.entries()) expect(sum).toBeCloseTo(alone![i]![1], 5);
      }
    }
  };
  const lossOf = async (rank: TestRank, model: Stack, step: number) => {
    const { x, y } = batch(rank, step);
    return ops.mseLoss(await model.call(x), y);
  };

  test("may come two before one backward", async () => {
    await agree(async (rank, model) => ops.add(await lossOf(rank, model, 0), await lossOf(rank, model, 1)));
  });

  test("without a backward leave nothing behind", async () => {
    await agree(async (rank, model) => {
      await lossOf(rank, model, 3);
      await rank.device.noGrad(() => lossOf(rank, model, 4));
      return await lossOf(rank, model, 0);
    });
  });

  test("may leave modules out, other ones every time", async () => {
    await agree(async (rank, model) => {
      const part = async (blocks: readonly number[], step: number) => {
        const { forward } = model;
        model.forward = async (x) => {
          let states = await model.inner.call(x);
          for (const i of blocks) states = await model.blocks[i]!.call(states);
          return await model.outer.call(states);
        };
        try {
          return await lossOf(rank, model, step);
        } finally {
          model.forward = forward;
        }
      };
      await (await part([0, 1], 0)).backward();
      await (await part([], 1)).backward();
      await (await part([1, 0, 1], 2)).backward();
      return await part([0], 3);
    });
  });
});

import { describe, expect, test } from "bun:test";
import { gatherParameter } from "../../../core/engine/full-tensor.ts";
import { setRequiresGradientSync, unitsBelow } from "../../../core/engine/shard-module.ts";
import { AdamW } from "../../../core/optim/mod.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { Stack } from "../../support/models.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";

import { batch, build, LAYERS, train } from "./stack-run.ts";

const [reference] = await runRanks(1, (rank) => train(rank, { shard: false }));

describe("training a sharded model", () => {
  for (const worldSize of [1, 2, 4, 8]) {
    for (const reshardAfterForward of [undefined, true, false]) {
      test(`gives the unsharded losses, norms and weights on ${worldSize} ranks with reshardAfterForward ${reshardAfterForward}`, async () => {
        const results = await runRanks(worldSize, (rank) => train(rank, { reshardAfterForward }));
        for (const { losses, norms, weights } of results) {
          for (const [i, loss] of losses.entries()) expect(loss).toBeCloseTo(reference!.losses[i]!, 5);
          for (const [i, norm] of norms.entries()) expect(norm).toBeCloseTo(reference!.norms[i]!, 5);
          for (const [name, values] of Object.entries(weights)) {
            for (const [i, value] of values.entries()) {
              expect(value).toBeCloseTo(reference!.weights[name]![i]!, 5);
            }
          }
        }
      });
    }
  }

  test("does not change in a bit when units are gathered ahead in forward, and communicates as often", async () => {
    const run = (forwardPrefetch: boolean) =>
      runRanks(2, async (rank) => ({
        ...(await train(rank, { forwardPrefetch })),
        peaks: [],
        calls: rank.calls.length,
      }));
    expect(await run(true)).toEqual(await run(false));
  });

  test("is bitwise the same run when it is repeated", async () => {
    const once = await runRanks(4, (rank) => train(rank, {}));
    const twice = await runRanks(4, (rank) => train(rank, {}));
    expect(twice).toEqual(once);
  });

  test("peaks at the same bytes in every step", async () => {
    for (const reshardAfterForward of [undefined, true, false]) {
      const [result] = await runRanks(2, (rank) => train(rank, { reshardAfterForward, steps: 5 }));
      expect(new Set(result!.peaks).size).toBe(1);
    }
  });

  test("adds up gradients over microbatches without reducing until the last", async () => {
    const run = async (rank: TestRank, sync: boolean) => {
      const model = build(rank, {});
      await model.to(rank.device);
      for (let micro = 0; micro < 3; micro++) {
        setRequiresGradientSync(model, sync || micro === 2);
        await rank.device.scope(async () => {
          const { x, y } = batch(rank, micro);
          await ops.mseLoss(await model.call(x), y).backward();
        });
      }
      const gradients = await Promise.all(model.parameters().map((p) => p.grad!.data()));
      return { gradients, reductions: rank.calls.filter((name) => name === "reduceScatter").length };
    };
    const each = await runRanks(2, (rank) => run(rank, true));
    const last = await runRanks(2, (rank) => run(rank, false));
    expect(each[0]!.reductions).toBe(3 * (LAYERS + 1));
    expect(last[0]!.reductions).toBe(LAYERS + 1);
    for (const [r, { gradients }] of last.entries()) {
      for (const [i, gradient] of gradients.entries()) {
        const other = each[r]!.gradients[i]! as Float32Array;
        for (const [j, value] of (gradient as Float32Array).entries())
          expect(value).toBeCloseTo(other[j]!, 5);
      }
    }
  });
});

describe("mixed precision", () => {
  // A wider dtype goes the same ways as a narrower one, and every backend computes in it.
  const mpPolicy = { paramDtype: "float64", reduceDtype: "float64", outputDtype: "float32" } as const;

  test("computes and communicates in its dtypes, and keeps shards, gradients and optimizer state in the original one", async () => {
    for (const worldSize of [1, 2]) {
      await runRanks(worldSize, async (rank) => {
        const model = build(rank, { mpPolicy });
        await model.to(rank.device);
        const optimizer = new AdamW(model.parameters(), { lr: 0.01 });
        const seen: string[] = [];
        model.blocks[0]!.wrapCall(async (args, next) => {
          const result = await next(args);
          seen.push((args[0] as Tensor).dtype, (result as Tensor).dtype);
          return result;
        });
        model.blocks[0]!.up.wrapCall(async (args, next) => {
          seen.push((args[0] as Tensor).dtype, model.blocks[0]!.up.weight.dtype);
          return await next(args);
        });
        await rank.device.scope(async () => {
          const out = await model.call(batch(rank, 0).x);
          expect(out.dtype).toBe("float32");
          await ops.mean(out).backward();
        });
        expect(seen).toEqual(["float64", "float64", "float64", "float64"]);
        optimizer.step();
        for (const parameter of model.parameters()) {
          expect(parameter.dtype).toBe("float32");
          expect(parameter.local.dtype).toBe("float32");
          expect(parameter.grad!.dtype).toBe("float32");
          for (const { tensor } of optimizer.state(parameter)!.tensors) expect(tensor.dtype).toBe("float32");
        }
      });
    }
  });

  test("trains as without it, within the rounding of the dtypes", async () => {
    for (const worldSize of [1, 2, 4]) {
      const [result] = await runRanks(worldSize, (rank) =>
        train(rank, { mpPolicy: { ...mpPolicy, outputDtype: "float32" } }),
      );
      for (const [i, loss] of result!.losses.entries()) expect(loss).toBeCloseTo(reference!.losses[i]!, 5);
      for (const [i, norm] of result!.norms.entries()) expect(norm).toBeCloseTo(reference!.norms[i]!, 5);
    }
  });

  test("refuses dtypes that are not floating", async () => {
    await runRanks(1, async (rank) => {
      expect(() => build(rank, { mpPolicy: { paramDtype: "int32" } })).toThrow(/paramDtype is "int32"/);
    });
  });
});

describe("collectives of a step", () => {
  const count = async (reshardAfterForward: boolean | undefined, worldSize: number) => {
    const [result] = await runRanks(worldSize, async (rank) => {
      const model = build(rank, { reshardAfterForward });
      await model.to(rank.device);
      const counts: Record<string, number>[] = [];
      for (let step = 0; step < 2; step++) {
        rank.calls.length = 0;
        await rank.device.scope(async () => {
          const { x, y } = batch(rank, step);
          const loss = ops.mseLoss(await model.call(x), y);
          const forward = rank.calls.length;
          await loss.backward();
          const backward = rank.calls.slice(forward);
          counts.push({
            forwardGathers: rank.calls.slice(0, forward).filter((name) => name === "allGather").length,
            backwardGathers: backward.filter((name) => name === "allGather").length,
            reductions: backward.filter((name) => name === "reduceScatter").length,
            all: rank.calls.length,
          });
        });
      }
      return counts;
    });
    return result!;
  };

  test("are L+1 gathers, L+1 gathers and L+1 reductions when everything reshards", async () => {
    const expected = { forwardGathers: 4, backwardGathers: 4, reductions: 4, all: 12 };
    expect(await count(true, 2)).toEqual([expected, expected]);
  });

  test("are L+1 gathers, none and L+1 reductions when nothing reshards", async () => {
    const expected = { forwardGathers: 4, backwardGathers: 0, reductions: 4, all: 8 };
    expect(await count(false, 2)).toEqual([expected, expected]);
  });

  test("leave out the root's second gather by default", async () => {
    const expected = { forwardGathers: 4, backwardGathers: 3, reductions: 4, all: 11 };
    expect(await count(undefined, 2)).toEqual([expected, expected]);
  });

  test("are none at all on one rank", async () => {
    const expected = { forwardGathers: 0, backwardGathers: 0, reductions: 0, all: 0 };
    expect(await count(true, 1)).toEqual([expected, expected]);
  });
});

describe("memory of a step", () => {
  test("in parameters, gradients and optimizer state stays within a share of the whole plus two units, at every moment", async () => {
    const worldSize = 4;
    await runRanks(worldSize, async (rank) => {
      // Extents that four ranks share evenly, so that no padding blurs the bound.
      const model = new Stack({ layers: 4, features: 8, width: 32, hidden: 64 });
      for (const block of model.blocks) fullyShard(block, { mesh: rank.mesh });
      fullyShard(model, { mesh: rank.mesh });
      await model.to(rank.device);
      const optimizer = new AdamW(model.parameters(), { lr: 0.01 });
      optimizer.initState();
      const sizes = unitsBelow(model)
        .map((unit) => unit.numel * 4)
        .sort((a, b) => b - a);
      const unsharded = model.parameters().reduce((sum, parameter) => sum + parameter.byteLength * 4, 0);
      // The head has a single row and a bias of one: all of their shards lie on rank 0, padded elsewhere.
      const padding = unitsBelow(model).reduce(
        (sum, unit) => sum + 4 * 4 * (unit.shardNumel - unit.numel / worldSize),
        0,
      );
      const bound = unsharded / worldSize + padding + 2 * (sizes[0]! + sizes[1]!);
      const peaks: number[] = [];
      for (let step = 0; step < 4; step++) {
        rank.device.backend.memory.resetPeak();
        await rank.device.scope(async () => {
          const x = rank.device.randn([4, 8]);
          await ops.mean(await model.call(x)).backward();
        });
        optimizer.step();
        optimizer.zeroGrad();
        peaks.push(rank.device.backend.memory.report().peakState);
      }
      expect(Math.max(...peaks)).toBeLessThanOrEqual(bound);
      expect(new Set(peaks).size).toBe(1);
      // The bound means something: a rank with everything would break it.
      expect(unsharded).toBeGreaterThan(bound);
    });
  });

  test("returns to what it was before the model computed", async () => {
    await runRanks(2, async (rank) => {
      const model = build(rank, {});
      await model.to(rank.device);
      const before = rank.device.backend.memory.report().currentTotal;
      await rank.device.noGrad(() =>
        rank.device.scope(async () => {
          await model.call(batch(rank, 0).x);
        }),
      );
      expect(rank.device.backend.memory.report().currentTotal).toBe(before);
      for (const unit of unitsBelow(model)) expect(unit.state).toBe("sharded");
    });
  });
});

describe("a sharded parameter", () => {
  test("keeps its identity and name, and cannot be read outside its unit's call", async () => {
    await runRanks(2, async (rank) => {
      const model = build(rank, {});
      const before = model.parameters();
      await model.to(rank.device);
      await rank.device.scope(async () => {
        await ops.mean(await model.call(batch(rank, 0).x)).backward();
      });
      expect(model.parameters()).toEqual(before);
      const weight = model.blocks[1]!.up.weight;
      expect(weight.name).toBe("blocks.1.up.weight");
      expect(() => weight.span).toThrow(/"blocks\.1\.up\.weight".*is sharded now/);
    });
  });

  test("starts from the same values whatever the world size and whether it is sharded before or after it has values", async () => {
    const weightsOf = (worldSize: number, late: boolean) =>
      runRanks(worldSize, async (rank) => {
        const model = build(rank, { shard: !late });
        await model.to(rank.device);
        if (late) {
          for (const block of model.blocks) fullyShard(block, { mesh: rank.mesh });
          fullyShard(model, { mesh: rank.mesh });
        }
        return await Promise.all(model.parameters().map((parameter) => gatherParameter(parameter)));
      });
    const [single] = await weightsOf(1, false);
    for (const worldSize of [2, 3, 5]) {
      for (const late of [false, true]) {
        for (const weights of await weightsOf(worldSize, late)) expect(weights).toEqual(single!);
      }
    }
  });

  test("works again after a forward that failed", async () => {
    await runRanks(2, async (rank) => {
      const model = build(rank, {});
      await model.to(rank.device);
      const before = rank.device.backend.memory.report().currentTotal;
      const failing = rank.device.scope(async () => await model.call(rank.device.zeros([2, 3])));
      await expect(failing).rejects.toThrow(/linear\(\) failed/);
      await failing.catch(() => {});
      expect(rank.device.backend.memory.report().currentTotal).toBe(before);
      await rank.device.scope(async () => {
        await ops.mean(await model.call(batch(rank, 0).x)).backward();
      });
      expect(model.blocks[0]!.up.weight.grad).toBeDefined();
    });
  });

  test("gets no gradient, and its unit no reduction, when the loss does not reach it", async () => {
    await runRanks(2, async (rank) => {
      const model = build(rank, {});
      await model.to(rank.device);
      await rank.device.scope(async () => {
        await model.call(batch(rank, 0).x);
        const states = await model.blocks[0]!.call(rank.device.randn([2, 6]));
        rank.calls.length = 0;
        await ops.mean(states).backward();
      });
      expect(rank.calls.filter((name) => name === "reduceScatter").length).toBe(1);
      expect(model.blocks[0]!.up.weight.grad).toBeDefined();
      expect(model.blocks[1]!.up.weight.grad).toBeUndefined();
      for (const unit of unitsBelow(model)) expect(unit.state).toBe("sharded");
    });
  });
});

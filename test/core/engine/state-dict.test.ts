import { describe, expect, test } from "bun:test";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { gatherParameter } from "../../../core/engine/full-tensor.ts";
import {
  type FullModelStateDict,
  fullTensors,
  getModelStateDict,
  setModelStateDict,
} from "../../../core/engine/model-state-dict.ts";
import {
  type FullOptimizerStateDict,
  getOptimizerStateDict,
  setOptimizerStateDict,
} from "../../../core/engine/optimizer-state-dict.ts";
import { loadFromRank0 } from "../../../core/engine/rank0-loading.ts";
import { modelState } from "../../../core/engine/sharded-state.ts";
import { constant, Linear, Module } from "../../../core/nn/mod.ts";
import { AdamW } from "../../../core/optim/mod.ts";
import { initDeviceMesh } from "../../../core/runtime/device-mesh.ts";
import { fullyShard } from "../../../plugins/fsdp2/mod.ts";
import type { Stack } from "../../support/models.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import { forwardBackward, smallStack } from "../../support/training.ts";

/** Worlds, and meshes of them. */
const MESHES = [[1], [2], [3], [4], [2, 2], [3, 1]];
const worldOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

async function sharded(rank: TestRank, shape: readonly number[], seed = 7): Promise<Stack> {
  const mesh = await initDeviceMesh(rank.collective, shape);
  const model = smallStack(2);
  for (const block of model.blocks) fullyShard(block, { mesh });
  fullyShard(model, { mesh });
  rank.device.seed = seed;
  return await model.to(rank.device);
}

const optimizerFor = (model: Stack) =>
  new AdamW([
    { params: [...model.blocks[0]!.parameters()], lr: 0.01 },
    { params: model.parameters().filter((p) => !model.blocks[0]!.parameters().includes(p)), lr: 0.02 },
  ]);

async function step(rank: TestRank, model: Stack, optimizer: AdamW, index: number): Promise<void> {
  await forwardBackward(rank, model, index);
  optimizer.step();
  optimizer.zeroGrad();
}

describe("full state dicts", () => {
  for (const shape of MESHES) {
    test(`of model and optimizer go from one world to ${shape.join(" x ")} ranks, on every rank or on the first alone`, async () => {
      const [saved] = await runRanks(2, async (rank) => {
        const model = await sharded(rank, [2]);
        const optimizer = optimizerFor(model);
        for (let i = 0; i < 2; i++) await step(rank, model, optimizer, i);
        const model1 = await getModelStateDict(model, { fullStateDict: true });
        const optimizer1 = await getOptimizerStateDict(model, optimizer, { fullStateDict: true });
        await step(rank, model, optimizer, 2);
        return { model1, optimizer1, next: await getModelStateDict(model, { fullStateDict: true }) };
      });
      for (const broadcastFromRank0 of [false, true]) {
        const results = await runRanks(worldOf(shape), async (rank) => {
          const model = await sharded(rank, shape, 99);
          const optimizer = optimizerFor(model);
          for (const group of optimizer.groups) group.lr = 7;
          const options = { fullStateDict: true, broadcastFromRank0 };
          const given = !broadcastFromRank0 || rank.rank === 0;
          await setModelStateDict(model, given ? saved!.model1 : {}, options);
          const none: FullOptimizerStateDict = { state: {}, paramGroups: [] };
          await setOptimizerStateDict(model, optimizer, given ? saved!.optimizer1 : none, options);
          const again = await getModelStateDict(model, { fullStateDict: true, cpuOffload: true });
          const state = await getOptimizerStateDict(model, optimizer, {
            fullStateDict: true,
            cpuOffload: true,
          });
          await step(rank, model, optimizer, 2);
          return { again, state, next: await getModelStateDict(model, { fullStateDict: true }) };
        });
        expect(results[0]!.again).toEqual(saved!.model1);
        expect(results[0]!.state).toEqual(saved!.optimizer1);
        for (const { again, state, next } of results.slice(1)) {
          expect([again, state]).toEqual([{}, { state: {}, paramGroups: [] }]);
          expect(next).toEqual(results[0]!.next);
        }
        for (const [name, { data }] of Object.entries(results[0]!.next)) {
          for (const [i, value] of data.entries()) {
            expect(Number(value)).toBeCloseTo(Number(saved!.next[name]!.data[i]), 5);
          }
        }
      }
    });
  }

  test("that do not fit are refused on every rank, with all that is wrong, and change nothing", async () => {
    for (const broadcastFromRank0 of [false, true]) {
      await runRanks(2, async (rank) => {
        const model = await sharded(rank, [2]);
        const before = await getModelStateDict(model, { fullStateDict: true });
        const { "inner.weight": _, ...rest } = before;
        const bad: FullModelStateDict = {
          ...rest,
          "outer.bias": { dtype: "float64", shape: [1], data: new Float64Array(1) },
          "inner.bias": { dtype: "float32", shape: [6], data: new Float32Array(5) },
          other: { dtype: "float32", shape: [1], data: new Float32Array(1) },
        };
        const given = !broadcastFromRank0 || rank.rank === 0 ? bad : {};
        const loading = setModelStateDict(model, given, { fullStateDict: true, broadcastFromRank0 });
        await expect(loading).rejects.toThrow(CheckpointError);
        for (const problem of [
          '"inner.weight" is missing',
          '"other" is unknown',
          '"outer.bias" is float64 [1], wanted is float32 [1]',
          '"inner.bias" of shape [6] has 5 elements',
        ]) {
          await expect(loading).rejects.toThrow(problem);
        }
        expect(await getModelStateDict(model, { fullStateDict: true })).toEqual(before);
        const { other: _other, "outer.bias": _bias, "inner.bias": _inner, ...partial } = bad;
        const left = await setModelStateDict(
          model,
          { ...partial, other: bad.other! },
          { fullStateDict: true, strict: false },
        );
        expect(left).toEqual({
          missingKeys: ["inner.weight", "inner.bias", "outer.bias"],
          unexpectedKeys: ["other"],
        });
      });
    }
  });

  test("take tied parameters under any of their names", async () => {
    class Tied extends Module<[], void> {
      readonly a: Linear = new Linear(2, 2);
      readonly b: Linear = Object.assign(new Linear(2, 2), { weight: this.a.weight });
      override forward(): void {}
    }
    await runRanks(1, async (rank) => {
      const model = await fullyShard(new Tied(), { mesh: rank.mesh }).to(rank.device);
      const dict = await getModelStateDict(model, { fullStateDict: true });
      expect(Object.keys(dict)).toEqual(["a.weight", "a.bias", "b.bias"]);
      await setModelStateDict(model, { ...dict, "b.weight": dict["a.weight"]! }, { fullStateDict: true });
    });
  });

  test("refuse an optimizer whose groups are other ones", async () => {
    await runRanks(1, async (rank) => {
      const model = await sharded(rank, [1]);
      const optimizer = optimizerFor(model);
      await step(rank, model, optimizer, 0);
      const dict = await getOptimizerStateDict(model, optimizer, { fullStateDict: true });
      const other = new AdamW(model.parameters(), { lr: 1 });
      await expect(setOptimizerStateDict(model, other, dict, { fullStateDict: true })).rejects.toThrow(
        /group 0 has "blocks\.0\.up\.weight"/,
      );
    });
  });

  test("tensor by tensor hold one at a time, in the model's order", async () => {
    await runRanks(2, async (rank) => {
      const model = await sharded(rank, [2]);
      const names: string[] = [];
      for await (const [name, { data, shape }] of fullTensors(model)) {
        names.push(name);
        expect(data.length).toBe(shape.reduce((a, b) => a * b, 1));
      }
      expect(names).toEqual([...model.namedParameters()].map(([name]) => name));
    });
  });
});

describe("sharded state dicts", () => {
  test("communicate nothing, and show and change the shards themselves", async () => {
    await runRanks(3, async (rank) => {
      const model = await sharded(rank, [3]);
      const optimizer = optimizerFor(model);
      await step(rank, model, optimizer, 0);
      rank.calls.length = 0;
      const dict = await getModelStateDict(model);
      const state = await getOptimizerStateDict(model, optimizer);
      expect(rank.calls).toEqual([]);
      const read = async () => await dict["inner.weight"]!.pieces[0]!.read();
      const before = await read();
      await step(rank, model, optimizer, 1);
      expect(await read()).not.toEqual(before);

      const other = await sharded(rank, [3], 5);
      const otherOptimizer = optimizerFor(other);
      await setModelStateDict(other, dict);
      await setOptimizerStateDict(other, otherOptimizer, await getOptimizerStateDict(model, optimizer));
      expect(state.state["inner.weight"]!.step).toBe(1);
      await step(rank, other, otherOptimizer, 2);
      await step(rank, model, optimizer, 2);
      for (const [i, parameter] of other.parameters().entries()) {
        expect(await parameter.local.data()).toEqual(await model.parameters()[i]!.local.data());
      }
    });
  });

  test("cut in another way are left to a checkpointer", async () => {
    await runRanks(2, async (rank) => {
      const model = await sharded(rank, [2]);
      const alone = await smallStack(2).to(rank.device);
      await expect(setModelStateDict(model, await getModelStateDict(alone))).rejects.toThrow(
        /cut in another way/,
      );
    });
  });

  test("say which replica of a box a rank holds", async () => {
    const replicas = await runRanks(4, async (rank) => {
      const model = await sharded(rank, [2, 2]);
      const dict = await getModelStateDict(model);
      const [saved] = modelState(model, rank.collective);
      expect(saved!.pieces[0]!.replica).toEqual(dict["inner.weight"]!.pieces[0]!.replica!);
      return [dict["inner.weight"]!.pieces[0]!.offsets, saved!.pieces[0]!.replica];
    });
    expect(replicas).toEqual([
      [[0, 0], { index: 0, count: 2 }],
      [[3, 0], { index: 0, count: 2 }],
      [[0, 0], { index: 1, count: 2 }],
      [[3, 0], { index: 1, count: 2 }],
    ]);
  });
});

describe("loadFromRank0", () => {
  for (const shape of MESHES) {
    test(`gives ${shape.join(" x ")} ranks the first one's values, which alone reads them, a shard at a time`, async () => {
      await runRanks(worldOf(shape), async (rank) => {
        let read = 0;
        let largest = 0;
        const watched = {
          ...rank.collective,
          broadcast: (...[data, root]: Parameters<typeof rank.collective.broadcast>) => {
            largest = Math.max(largest, data.length);
            return rank.collective.broadcast(data, root);
          },
        };
        const mesh = await initDeviceMesh(watched, shape);
        const model = smallStack(2);
        for (const parameter of model.parameters()) {
          const { initializer } = parameter;
          parameter.initializer = (request) => {
            read = Math.max(read, request.out.length);
            if (rank.rank !== 0) throw new CheckpointError("only the first rank has the file");
            return initializer(request);
          };
        }
        for (const block of model.blocks) fullyShard(block, { mesh });
        fullyShard(model, { mesh });
        await loadFromRank0(model, rank.device);
        const shards = shape.at(-1)!;
        const largestShard = Math.max(Math.ceil(7 / shards) * 6, Math.ceil(6 / shards) * 7);
        if (rank.rank === 0) expect(read).toBeLessThanOrEqual(largestShard);
        else expect(read).toBe(0);
        if (shape.length === 1) expect(largest).toBeLessThanOrEqual(largestShard);
        const plain = await smallStack(2).to(rank.device);
        for (const [i, parameter] of model.parameters().entries()) {
          expect(await gatherParameter(parameter)).toEqual(await plain.parameters()[i]!.data());
        }
        await forwardBackward(rank, model, 0);
      });
    });
  }

  test("ends every rank when the first cannot read", async () => {
    const running = runRanks(3, async (rank) => {
      const model = fullyShard(new Linear(2, 3), { mesh: rank.mesh });
      model.weight.initializer = () => {
        throw new CheckpointError("no such file");
      };
      model.bias!.initializer = constant(1);
      await expect(loadFromRank0(model, rank.device)).rejects.toThrow("no such file");
      return "told";
    });
    expect(await running).toEqual(["told", "told", "told"]);
  });
});

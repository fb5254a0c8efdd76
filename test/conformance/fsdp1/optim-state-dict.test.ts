/** PyTorch's test_fsdp_optim_state: optimizer state by name, into any wrapping and world. */
import { describe, expect, test } from "bun:test";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import type { FullOptimizerStateDict as OptimStateDict } from "../../../core/engine/optimizer-state-dict.ts";
import { alwaysWrap, noWrap } from "../../../core/engine/wrap-policy.ts";
import type { Parameter } from "../../../core/nn/mod.ts";
import { AdamW, SGD } from "../../../core/optim/mod.ts";
import { type FullyShardedDataParallel, rekeyOptimStateDict } from "../../../plugins/fsdp1/mod.ts";
import type { Stack } from "../../support/models.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import { failure, type Options, pass, sharded, stack } from "./harness.ts";

const adamw = (parameters: readonly Parameter[]) => new AdamW(parameters, { lr: 0.01, weightDecay: 0.1 });

/** A model and its optimizer after two steps. */
async function trained(rank: TestRank, options: Options = {}) {
  const fsdp = await sharded(rank, options);
  const optimizer = adamw(fsdp.parameters());
  for (let step = 0; step < 2; step++) {
    await pass(rank, fsdp, step);
    optimizer.step();
    optimizer.zeroGrad();
  }
  return { fsdp, optimizer };
}

/** The same without sharding, as a dict by name. */
const [plain] = await runRanks(1, async (rank) => {
  const model = await stack().to(rank.device);
  const optimizer = adamw(model.parameters());
  for (let step = 0; step < 2; step++) {
    await pass(rank, model, step);
    optimizer.step();
    optimizer.zeroGrad();
  }
  const state: Record<string, { step: number; tensors: Record<string, number[]> }> = {};
  for (const [name, parameter] of model.namedParameters()) {
    const { step, tensors } = optimizer.state(parameter)!;
    const values: Record<string, number[]> = {};
    for (const { key, tensor } of tensors) values[key] = Array.from(await tensor.data(), Number);
    state[name] = { step, tensors: values };
  }
  return state;
});

function expectPlain(dict: OptimStateDict): void {
  expect(Object.keys(dict.state).sort()).toEqual(Object.keys(plain!).sort());
  for (const [name, { step, tensors }] of Object.entries(dict.state)) {
    expect(step).toBe(plain![name]!.step);
    expect(Object.keys(tensors)).toEqual(Object.keys(plain![name]!.tensors));
    for (const [key, { data }] of Object.entries(tensors)) {
      for (const [i, value] of Array.from(data, Number).entries()) {
        expect(value).toBeCloseTo(plain![name]!.tensors[key]![i]!, 6);
      }
    }
  }
}

describe("a full optimizer state dict", () => {
  test("is the unsharded optimizer's by name, under every wrapping, strategy and world", async () => {
    const variants: readonly Options[] = [
      {},
      { useOrigParams: true },
      { autoWrapPolicy: noWrap },
      { useOrigParams: true, autoWrapPolicy: alwaysWrap },
      { shardingStrategy: "NO_SHARD" },
      { shardingStrategy: "HYBRID_SHARD" },
    ];
    for (const options of variants) {
      for (const worldSize of [1, 2, 3, 4]) {
        const dicts = await runRanks(worldSize, async (rank) => {
          const { fsdp, optimizer } = await trained(rank, options);
          return await fsdp.optimStateDict(optimizer);
        });
        for (const dict of dicts) {
          expectPlain(dict);
          expect(dict.paramGroups.map(({ params }) => [...params].sort())).toEqual([
            Object.keys(plain!).sort(),
          ]);
        }
      }
    }
  });

  test("loads into another wrapping and world, training goes on as it would have", async () => {
    const next = async (rank: TestRank, fsdp: FullyShardedDataParallel<Stack>, optimizer: AdamW) => {
      for (let step = 2; step < 4; step++) {
        await pass(rank, fsdp, step);
        optimizer.step();
        optimizer.zeroGrad();
      }
      return await fsdp.stateDict();
    };
    const [saved] = await runRanks(4, async (rank) => {
      const { fsdp, optimizer } = await trained(rank);
      const [model, optim] = [await fsdp.stateDict(), await fsdp.optimStateDict(optimizer)];
      return { model, optim, after: await next(rank, fsdp, optimizer) };
    });
    const { model, optim, after } = saved!;
    for (const [worldSize, options] of [
      [2, { useOrigParams: true, autoWrapPolicy: noWrap }],
      [1, {}],
      [3, { autoWrapPolicy: alwaysWrap }],
      [4, { shardingStrategy: "HYBRID_SHARD" }],
    ] as const) {
      for (const rank0Only of [false, true]) {
        const results = await runRanks(worldSize, async (rank) => {
          const fsdp = await sharded(rank, options);
          const optimizer = new AdamW(fsdp.parameters(), { lr: 1 });
          const given = rank0Only && rank.rank > 0;
          await fsdp.loadStateDict(given ? {} : model, { rank0Only });
          const none: OptimStateDict = { state: {}, paramGroups: [] };
          await fsdp.loadOptimStateDict(optimizer, given ? none : optim, { rank0Only });
          expect(optimizer.groups[0]).toMatchObject({ lr: 0.01, weightDecay: 0.1 });
          return await next(rank, fsdp, optimizer);
        });
        for (const dict of results) {
          for (const [name, { data }] of Object.entries(dict)) {
            for (const [i, value] of Array.from(data, Number).entries()) {
              expect(value).toBeCloseTo(Number(after[name]!.data[i]), 5);
            }
          }
        }
      }
    }
  });

  test("is the first rank's alone with rank0Only", async () => {
    const dicts = await runRanks(3, async (rank) => {
      const { fsdp, optimizer } = await trained(rank);
      return await fsdp.optimStateDict(optimizer, { rank0Only: true });
    });
    expectPlain(dicts[0]!);
    expect(dicts.slice(1)).toEqual([
      { state: {}, paramGroups: [] },
      { state: {}, paramGroups: [] },
    ]);
  });

  test("keeps groups with values of their own", async () => {
    await runRanks(2, async (rank) => {
      const build = async () => {
        const fsdp = await sharded(rank, { useOrigParams: true });
        const parameters = [...fsdp.namedParameters()];
        const biases = parameters.filter(([name]) => name.endsWith("bias")).map(([, parameter]) => parameter);
        const weights = parameters
          .filter(([name]) => name.endsWith("weight"))
          .map(([, parameter]) => parameter);
        return { fsdp, biases, weights };
      };
      const one = await build();
      const groups = [{ params: one.weights }, { params: one.biases, lr: 0.5 }];
      const first = new SGD(groups, { lr: 0.1, momentum: 0.9 });
      await pass(rank, one.fsdp, 0);
      first.step();
      const dict = await one.fsdp.optimStateDict(first);
      expect(dict.paramGroups.map(({ values }) => values.lr)).toEqual([0.1, 0.5]);
      const two = await build();
      const second = new SGD([{ params: two.biases }, { params: two.weights }], { lr: 1, momentum: 0.9 });
      await two.fsdp.loadOptimStateDict(second, dict);
      expect(second.groups.map(({ lr }) => lr)).toEqual([0.5, 0.1]);
      const third = new SGD([{ params: [two.biases[0]!, two.weights[0]!] }], { lr: 1, momentum: 0.9 });
      expect((await failure(two.fsdp.loadOptimStateDict(third, dict))).message).toMatch(
        /no saved group has all of its parameters/,
      );
    });
  });

  test("that does not fit is refused: unknown names, other shapes, state on some ranks only", async () => {
    const [dict] = await runRanks(1, async (rank) => {
      const { fsdp, optimizer } = await trained(rank);
      return await fsdp.optimStateDict(optimizer);
    });
    const bias = dict!.state["inner.bias"]!;
    const bad: readonly [OptimStateDict["state"], RegExp][] = [
      [{ ...dict!.state, stranger: bias }, /"stranger" is not in the model/],
      [{ ...dict!.state, "inner.bias": dict!.state["inner.weight"]! }, /"inner.bias.exp_avg" is float32/],
      [{ ...dict!.state, "inner.bias": { step: 1, tensors: {} } }, /"inner.bias.exp_avg" is missing/],
    ];
    await runRanks(2, async (rank) => {
      for (const [state, message] of bad) {
        const fsdp = await sharded(rank);
        const loading = fsdp.loadOptimStateDict(adamw(fsdp.parameters()), { ...dict!, state });
        expect((await failure(loading)).message).toMatch(message);
      }
      const fsdp = await sharded(rank);
      const optimizer = adamw(fsdp.parameters());
      if (rank.rank === 0) optimizer.initState();
      expect(await failure(fsdp.optimStateDict(optimizer))).toBeInstanceOf(CheckpointError);
    });
  });
});

test("a sharded optimizer state dict has each parameter's boxes for each of its tensors, live, without communication", async () => {
  for (const useOrigParams of [true, false]) {
    await runRanks(3, async (rank) => {
      const { fsdp, optimizer } = await trained(rank, { useOrigParams });
      rank.calls.length = 0;
      const model = await fsdp.stateDict({ type: "SHARDED_STATE_DICT" });
      const tensors = await fsdp.optimStateDict(optimizer, { type: "SHARDED_STATE_DICT" });
      expect(rank.calls).toEqual([]);
      expect(tensors.map(({ name }) => name).sort()).toEqual(
        model
          .flatMap(({ name }) =>
            ["exp_avg", "exp_avg_sq", "step"].map(
              (key) => `optim.state.${name.slice("model.".length)}.${key}`,
            ),
          )
          .sort(),
      );
      const boxes = (pieces: (typeof model)[number]["pieces"]) =>
        pieces.map(({ offsets, sizes }) => [offsets, sizes]);
      for (const { name, pieces } of model) {
        const state = tensors.find(
          (each) => each.name === `optim.state.${name.slice("model.".length)}.exp_avg`,
        )!;
        expect(boxes(state.pieces)).toEqual(boxes(pieces));
        for (const piece of state.pieces) {
          piece.write(Float32Array.from((await piece.read()) as Float32Array, () => 5));
        }
      }
      const { state } = await fsdp.optimStateDict(optimizer);
      for (const { tensors: whole } of Object.values(state)) {
        expect(new Set(whole.exp_avg!.data as Float32Array)).toEqual(new Set([5]));
      }
    });
  }
});

test("keys are names or positions, and change into each other", async () => {
  const model = stack();
  const [byName] = await runRanks(2, async (rank) => {
    const { fsdp, optimizer } = await trained(rank, { useOrigParams: true });
    return await fsdp.optimStateDict(optimizer);
  });
  const byId = rekeyOptimStateDict(byName!, "PARAM_ID", model);
  expect(byId.paramGroups[0]!.params.toSorted((a, b) => a - b)).toEqual(model.parameters().map((_, i) => i));
  expect(byId.state["0"]).toEqual(byName!.state["inner.weight"]!);
  expect(rekeyOptimStateDict(byId, "PARAM_NAME", model)).toEqual(byName!);
  const foreign = { ...byId, paramGroups: [{ values: {}, params: [99] }] };
  expect(() => rekeyOptimStateDict(foreign, "PARAM_NAME", model)).toThrow(CheckpointError);
});

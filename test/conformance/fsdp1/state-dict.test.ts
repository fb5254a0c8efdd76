/** PyTorch's test_fsdp_state_dict: what goes out comes in, whatever the type, the wrapping and the world. */
import { describe, expect, test } from "bun:test";
import { CheckpointError, ConfigError } from "../../../core/contracts/errors.ts";
import type { FullModelStateDict as StateDict } from "../../../core/engine/model-state-dict.ts";
import { alwaysWrap, noWrap } from "../../../core/engine/wrap-policy.ts";
import { Embedding, Module } from "../../../core/nn/mod.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { FullyShardedDataParallel } from "../../../plugins/fsdp1/mod.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import { batch, failure, type Options, pass, sharded, stack } from "./harness.ts";

/** A model with values that no initialiser gave: element i of a parameter is i + 1 times something of its own. */
const filled = (dict: StateDict): StateDict =>
  Object.fromEntries(
    Object.entries(dict).map(([name, tensor], t) => [
      name,
      { ...tensor, data: Float32Array.from(tensor.data as Float32Array, (_, i) => (t + 1) * (i + 1)) },
    ]),
  );

/** What ranks of a world hold after having loaded `dict`. */
const loaded = (worldSize: number, dict: StateDict, options: Options = {}) =>
  runRanks(worldSize, async (rank) => {
    const fsdp = await sharded(rank, options);
    await fsdp.loadStateDict(dict);
    return await fsdp.stateDict();
  });

const [original] = await runRanks(1, async (rank) => {
  const model = await stack().to(rank.device);
  const dict: Record<string, StateDict[string]> = {};
  for (const [name, { shape, dtype, ...parameter }] of model.namedParameters()) {
    void parameter;
    dict[name] = {
      shape,
      dtype,
      data: await model
        .parameters()
        .find((each) => each.name === name)!
        .data(),
    };
  }
  return dict;
});

describe("a full state dict", () => {
  test("is the unsharded model's, on every rank of every world, under every wrapping and strategy", async () => {
    const variants: readonly Options[] = [
      {},
      { useOrigParams: true },
      { autoWrapPolicy: noWrap },
      { autoWrapPolicy: alwaysWrap },
      { shardingStrategy: "NO_SHARD" },
      { shardingStrategy: "HYBRID_SHARD" },
      { mixedPrecision: { paramDtype: "bfloat16" } },
    ];
    for (const options of variants) {
      for (const worldSize of [1, 2, 3, 4]) {
        const dicts = await runRanks(
          worldSize,
          async (rank) => await (await sharded(rank, options)).stateDict(),
        );
        for (const dict of dicts) expect(dict).toEqual(original!);
      }
    }
  });

  test("loads into any other wrapping and world, and comes out the same", async () => {
    const dict = filled(original!);
    for (const worldSize of [1, 2, 3, 4]) {
      for (const options of [{}, { useOrigParams: true, autoWrapPolicy: alwaysWrap }] as const) {
        for (const back of await loaded(worldSize, dict, options)) expect(back).toEqual(dict);
      }
    }
  });

  test("is the first rank's alone with rank0Only, which can give it back to all", async () => {
    for (const shardingStrategy of ["FULL_SHARD", "HYBRID_SHARD"] as const) {
      const results = await runRanks(4, async (rank) => {
        const fsdp = await sharded(rank, { shardingStrategy });
        const own = await fsdp.stateDict({ rank0Only: true });
        await fsdp.loadStateDict(rank.rank === 0 ? filled(own) : {}, { rank0Only: true });
        return { names: Object.keys(own).length, after: await fsdp.stateDict() };
      });
      const names = Object.keys(original!).length;
      expect(results.map((result) => result.names)).toEqual([names, 0, 0, 0]);
      for (const { after } of results) expect(after).toEqual(filled(original!));
    }
  });

  test("can be taken and loaded between passes, and the next pass sees what was loaded", async () => {
    const outputs = await runRanks(2, async (rank) => {
      const out = async (fsdp: FullyShardedDataParallel<Module<[x: Tensor], Tensor>>) =>
        await rank.device.noGrad(() =>
          rank.device.scope(async () => Array.from(await (await fsdp.call(batch(rank, 0).x)).data(), Number)),
        );
      const other = await sharded(rank);
      await pass(rank, other, 0);
      const fresh = await out(other);
      const dict = await other.stateDict();
      await other.loadStateDict(filled(dict));
      const changed = await out(other);
      await other.loadStateDict(dict);
      return { fresh, changed, again: await out(other) };
    });
    for (const { fresh, changed, again } of outputs) {
      expect(again).toEqual(fresh);
      expect(changed).not.toEqual(fresh);
    }
  });

  test("has tied parameters under both names, and loads from either", async () => {
    class Tied extends Module<[ids: Tensor], Tensor> {
      readonly embed = new Embedding(5, 3);
      readonly head = { weight: this.embed.weight };
      readonly out = new Reader(this.embed);
      override async forward(ids: Tensor): Promise<Tensor> {
        return await this.out.call(await this.embed.call(ids));
      }
    }
    class Reader extends Module<[x: Tensor], Tensor> {
      readonly weight: Embedding["weight"];
      constructor(embed: Embedding) {
        super();
        this.weight = embed.weight;
      }
      override forward(x: Tensor): Tensor {
        return ops.linear(x, this.weight);
      }
    }
    for (const useOrigParams of [true, false]) {
      await runRanks(2, async ({ device, mesh }) => {
        const fsdp = await new FullyShardedDataParallel(new Tied(), { mesh, useOrigParams }).to(device);
        expect(fsdp.handles.map(({ numel }) => numel)).toEqual([15]);
        const dict = await fsdp.stateDict();
        expect(Object.keys(dict)).toEqual(["embed.weight", "out.weight"]);
        const data = Float32Array.from({ length: 15 }, (_, i) => i);
        await fsdp.loadStateDict({ "out.weight": { dtype: "float32", shape: [5, 3], data } });
        expect((await fsdp.stateDict())["embed.weight"]!.data).toEqual(data);
        await device.scope(async () => {
          await ops.mean(await fsdp.call(device.tensor(Int32Array.from([1, 4]), { shape: [2] }))).backward();
        });
        expect(fsdp.parameters()).toHaveLength(1);
        expect(fsdp.parameters()[0]!.grad).toBeDefined();
      });
    }
  });

  test("that does not fit is refused on every rank, all faults named, and changes nothing", async () => {
    const { "outer.bias": _, ...missing } = original!;
    const wrong = {
      ...missing,
      stranger: original!["inner.bias"]!,
      "inner.weight": { ...original!["inner.weight"]!, shape: [5, 6] },
    };
    for (const rank0Only of [false, true]) {
      const failures = await runRanks(2, async (rank) => {
        const fsdp = await sharded(rank);
        const failed = fsdp.loadStateDict(rank0Only && rank.rank > 0 ? {} : wrong, { rank0Only });
        const error: unknown = await failed.catch((reason: unknown) => reason);
        expect(await fsdp.stateDict()).toEqual(original!);
        return error;
      });
      for (const error of failures) {
        expect(error).toBeInstanceOf(CheckpointError);
        const { message } = error as CheckpointError;
        for (const name of ["outer.bias", "stranger", "inner.weight"]) expect(message).toContain(`"${name}"`);
      }
    }
  });
});

describe("a local state dict", () => {
  test("is each rank's range of every flat parameter, without padding, and loads on an equal job", async () => {
    for (const worldSize of [2, 3, 4]) {
      const dicts = await runRanks(worldSize, async (rank) => {
        const fsdp = await sharded(rank);
        const dict = await fsdp.stateDict({ type: "LOCAL_STATE_DICT" });
        const twice = Object.fromEntries(
          Object.entries(dict).map(([name, tensor]) => [
            name,
            { ...tensor, data: Float32Array.from(tensor.data as Float32Array, (value) => 2 * value) },
          ]),
        );
        await fsdp.loadStateDict(twice, { type: "LOCAL_STATE_DICT" });
        expect((await fsdp.stateDict())["inner.bias"]!.data).toEqual(
          Float32Array.from(original!["inner.bias"]!.data as Float32Array, (value) => 2 * value),
        );
        return dict;
      });
      expect(Object.keys(dicts[0]!)).toEqual(["_flat_param", "blocks.0._flat_param", "blocks.1._flat_param"]);
      const flat = dicts.flatMap((dict) => Array.from(dict._flat_param!.data, Number));
      const names = ["inner.weight", "inner.bias", "outer.weight", "outer.bias"];
      expect(flat).toEqual(names.flatMap((name) => Array.from(original![name]!.data, Number)));
    }
  });

  test("takes sharded strategies and no original parameters, and fits no other world", async () => {
    await runRanks(2, async (rank) => {
      for (const options of [{ useOrigParams: true }, { shardingStrategy: "NO_SHARD" }] as const) {
        const fsdp = await sharded(rank, options);
        expect(await failure(fsdp.stateDict({ type: "LOCAL_STATE_DICT" }))).toBeInstanceOf(ConfigError);
      }
    });
    const [two] = await runRanks(
      2,
      async (rank) => await (await sharded(rank)).stateDict({ type: "LOCAL_STATE_DICT" }),
    );
    await runRanks(3, async (rank) => {
      const fsdp = await sharded(rank);
      expect((await failure(fsdp.loadStateDict(two!, { type: "LOCAL_STATE_DICT" }))).message).toMatch(
        /the same units and ranks/,
      );
    });
  });
});

describe("a sharded state dict", () => {
  /** Where every element lies, by name, over all ranks. */
  async function covered(rank: TestRank, options: Options) {
    const fsdp = await sharded(rank, options);
    rank.calls.length = 0;
    const tensors = await fsdp.stateDict({ type: "SHARDED_STATE_DICT" });
    const pieces = await Promise.all(
      tensors.map(async ({ name, shape, pieces: held }) => ({
        name,
        shape,
        pieces: await Promise.all(
          held.map(async (piece) => ({ ...piece, values: Array.from((await piece.read()) as Float32Array) })),
        ),
      })),
    );
    expect(rank.calls).toEqual([]);
    return pieces;
  }

  test("has every element of the model once, in boxes of the ranks that hold them, without communication", async () => {
    for (const useOrigParams of [true, false]) {
      for (const worldSize of [1, 2, 3, 4]) {
        const ranks = await runRanks(worldSize, (rank) => covered(rank, { useOrigParams }));
        for (const [name, { data, shape }] of Object.entries(original!)) {
          const whole = new Array<number | undefined>(data.length).fill(undefined);
          for (const tensors of ranks) {
            const tensor = tensors.find((each) => each.name === `model.${name}`)!;
            expect(tensor.shape).toEqual([...shape]);
            for (const { offsets, sizes, values } of tensor.pieces) {
              const width = shape[1] ?? 1;
              for (const [i, value] of values.entries()) {
                const columns = sizes[1] ?? 1;
                const row = offsets[0]! + Math.floor(i / columns);
                const at = row * width + (offsets[1] ?? 0) + (i % columns);
                expect(whole[at]).toBeUndefined();
                whole[at] = value;
              }
            }
          }
          expect(whole).toEqual(Array.from(data, Number));
        }
      }
    }
  });

  test("names replicas where groups of ranks hold the same boxes", async () => {
    const ranks = await runRanks(4, (rank) => covered(rank, { shardingStrategy: "HYBRID_SHARD" }));
    for (const [r, tensors] of ranks.entries()) {
      for (const { pieces } of tensors) {
        for (const { replica } of pieces) expect(replica).toEqual({ index: Math.floor(r / 2), count: 2 });
      }
    }
  });

  test("is live: what a checkpoint writes to it is the model's", async () => {
    await runRanks(2, async (rank) => {
      const fsdp = await sharded(rank);
      for (const { pieces } of await fsdp.stateDict({ type: "SHARDED_STATE_DICT" })) {
        for (const piece of pieces)
          piece.write(Float32Array.from((await piece.read()) as Float32Array, () => 3));
      }
      for (const { data } of Object.values(await fsdp.stateDict())) {
        expect(new Set(data as Float32Array)).toEqual(new Set([3]));
      }
    });
  });
});

/** PyTorch's test_fsdp_unshard_params: whole parameters outside of forward and backward. */
import { describe, expect, test } from "bun:test";
import { cpuBackend } from "../../../backends/cpu/mod.ts";
import { ConfigError, StateError } from "../../../core/contracts/errors.ts";
import type { BackendFactory } from "../../../core/contracts/plugin.ts";
import { SGD } from "../../../core/optim/mod.ts";
import { Device } from "../../../core/tensor/device.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { FullyShardedDataParallel } from "../../../plugins/fsdp1/mod.ts";
import type { Stack } from "../../support/models.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import { remote } from "../../support/remote-backend.ts";
import { batch, failure, type Options, pass, sharded } from "./harness.ts";

const VARIANTS: readonly Options[] = [
  {},
  { useOrigParams: true },
  { useOrigParams: true, shardingStrategy: "SHARD_GRAD_OP" },
  { shardingStrategy: "NO_SHARD" },
  { useOrigParams: true, shardingStrategy: "HYBRID_SHARD", mixedPrecision: { paramDtype: "bfloat16" } },
];

const withGrads = { withGrads: true } as const;

/** The model's own parameters by name, whether optimizers see them or not. */
const own = (fsdp: FullyShardedDataParallel<Stack>) => {
  const { inner, blocks, outer } = fsdp.module;
  return {
    "inner.weight": inner.weight,
    "blocks.1.up.bias": blocks[1]!.up.bias!,
    "outer.weight": outer.weight,
  };
};

const fill = (fsdp: FullyShardedDataParallel<Stack>, value: number): void => {
  for (const { device, span } of Object.values(own(fsdp))) device.backend.kernels.fill(span, value);
};

describe("summoned parameters", () => {
  test("are whole, in full precision, and sharded again afterwards", async () => {
    for (const options of VARIANTS) {
      for (const worldSize of [1, 2, 4]) {
        await runRanks(worldSize, async (rank) => {
          const fsdp = await sharded(rank, options);
          const dict = await fsdp.stateDict();
          const before = rank.device.backend.memory.report().currentTotal;
          const result = await fsdp.summonFullParams({}, async () => {
            for (const [name, parameter] of Object.entries(own(fsdp))) {
              expect(parameter.dtype).toBe("float32");
              expect(await parameter.data()).toEqual(dict[name]!.data);
            }
            return "done";
          });
          expect(result).toBe("done");
          for (const parameter of Object.values(own(fsdp))) expect(parameter.owned).toBe(false);
          expect(rank.device.backend.memory.report().currentTotal).toBe(before);
        });
      }
    }
  });

  test("keep this rank's part of what is written to them, unless writeback is off", async () => {
    for (const options of VARIANTS) {
      for (const worldSize of [1, 3, 4]) {
        await runRanks(worldSize, async (rank) => {
          const fsdp = await sharded(rank, options);
          const names = Object.keys(own(fsdp));
          const before = await fsdp.stateDict();
          await fsdp.summonFullParams({ writeback: false }, () => fill(fsdp, 9));
          expect(await fsdp.stateDict()).toEqual(before);
          await fsdp.summonFullParams({}, () => fill(fsdp, 3));
          for (const [name, { data }] of Object.entries(await fsdp.stateDict())) {
            if (names.includes(name)) expect(new Set(data as Float32Array)).toEqual(new Set([3]));
            else expect(data).toEqual(before[name]!.data);
          }
        });
      }
    }
  });

  test("are what the next pass computes with, also between two forwards of one backward", async () => {
    await runRanks(2, async (rank) => {
      for (const shardingStrategy of ["FULL_SHARD", "SHARD_GRAD_OP"] as const) {
        const fsdp = await sharded(rank, { shardingStrategy });
        const sum = async () => ops.sum(await fsdp.call(batch(rank, 0).x));
        await rank.device.scope(async () => {
          const one = await sum();
          await fsdp.summonFullParams({ writeback: false }, () => {});
          const two = await sum();
          expect(await two.item()).toBe(await one.item());
          await ops.add(one, two).backward();
        });
        await fsdp.summonFullParams({}, () => fill(fsdp, 0));
        await rank.device.scope(async () => {
          // Without weights in the last layer just its bias is left.
          const { "outer.bias": bias } = await fsdp.stateDict();
          expect(await (await sum()).item()).toBeCloseTo((12 / 2) * Number(bias!.data[0]), 4);
        });
      }
    });
  });

  test("are those of one unit alone without recurse", async () => {
    await runRanks(2, async (rank) => {
      const fsdp = await sharded(rank);
      await fsdp.summonFullParams({ recurse: false }, () => {
        expect(fsdp.module.inner.weight.owned).toBe(true);
        expect(fsdp.module.blocks[0]!.up.weight.owned).toBe(false);
      });
    });
  });

  test("are the first rank's alone with rank0Only", async () => {
    for (const shardingStrategy of ["FULL_SHARD", "HYBRID_SHARD"] as const) {
      const owned = await runRanks(4, async (rank) => {
        const fsdp = await sharded(rank, { shardingStrategy });
        return await fsdp.summonFullParams({ rank0Only: true, writeback: false }, () =>
          Object.values(own(fsdp)).map((parameter) => parameter.owned),
        );
      });
      expect(owned.map((each) => each.every(Boolean))).toEqual([true, false, false, false]);
    }
  });

  test("lie on the host's device when offloaded, and come back from there", async () => {
    for (const shardingStrategy of ["FULL_SHARD", "NO_SHARD"] as const) {
      await runRanks(2, async (rank) => {
        const home = await cpuBackend.create({
          localWorldSize: 2,
          rank: rank.rank,
          settings: { matmul: "plain" },
        });
        const host = new Device(home, { seed: 7 });
        const fsdp = await sharded(rank, { shardingStrategy });
        await fsdp.summonFullParams({ offloadToCpu: host }, () => {
          for (const parameter of Object.values(own(fsdp))) expect(parameter.device).toBe(host);
          fill(fsdp, 4);
        });
        expect(fsdp.module.inner.weight.device).toBe(rank.device);
        const { "inner.weight": weight } = await fsdp.stateDict();
        expect(new Set(weight!.data as Float32Array)).toEqual(new Set([4]));
        await home.dispose();
      });
    }
  });

  test("lie on the device that computes when shards are offloaded, and what is written to them stays", async () => {
    await runRanks(2, async (rank) => {
      const home = await cpuBackend.create({
        localWorldSize: 2,
        rank: rank.rank,
        settings: { matmul: "plain" },
      });
      const device = new Device(home, { seed: 7 });
      const fsdp = await sharded(rank, { cpuOffload: { offloadParams: true, device } });
      await fsdp.summonFullParams({}, () => {
        for (const parameter of Object.values(own(fsdp))) expect(parameter.device).toBe(rank.device);
        fill(fsdp, 5);
      });
      const { "outer.weight": weight } = await fsdp.stateDict();
      expect(new Set(weight!.data as Float32Array)).toEqual(new Set([5]));
      await home.dispose();
    });
  });

  test("come from and go back to a device whose memory the host does not see, by way of the host if asked for", async () => {
    const create: BackendFactory["create"] = async (options) =>
      remote(await cpuBackend.create({ ...options, settings: { matmul: "plain" } }));
    const [wanted] = await runRanks(1, async (rank) => await (await sharded(rank)).stateDict());
    for (const useOrigParams of [true, false]) {
      await runRanks(
        3,
        async (rank) => {
          const home = await cpuBackend.create({
            localWorldSize: 3,
            rank: rank.rank,
            settings: { matmul: "plain" },
          });
          const host = new Device(home, { seed: 7 });
          const fsdp = await sharded(rank, { useOrigParams });
          for (const offloadToCpu of [undefined, host]) {
            await fsdp.summonFullParams({ offloadToCpu }, async () => {
              for (const [name, parameter] of Object.entries(own(fsdp))) {
                expect(parameter.device).toBe(offloadToCpu ?? rank.device);
                expect(await parameter.data()).toEqual(wanted![name]!.data);
              }
            });
          }
          expect(await fsdp.stateDict()).toEqual(wanted!);
          await fsdp.summonFullParams({ offloadToCpu: host }, () => fill(fsdp, 6));
          const { "inner.weight": weight } = await fsdp.stateDict();
          expect(new Set(weight!.data as Float32Array)).toEqual(new Set([6]));
          await home.dispose();
        },
        create,
      );
    }
  });

  test("show flat parameters whole too, without original ones", async () => {
    await runRanks(3, async (rank) => {
      const fsdp = await sharded(rank);
      const { numel } = fsdp.handles[0]!;
      await fsdp.summonFullParams({}, async () => {
        const [flat] = fsdp.parameters();
        const values = await flat!.data();
        expect(values.length).toBe(numel);
        expect(values.subarray(0, 30)).toEqual((await fsdp.module.inner.weight.data()) as never);
      });
    });
  });
});

describe("summoned gradients", () => {
  test("are whole, and what is written to them is what the optimizer steps with", async () => {
    for (const worldSize of [1, 2, 3]) {
      await runRanks(worldSize, async (rank) => {
        const fsdp = await sharded(rank, { useOrigParams: true });
        await pass(rank, fsdp, 0);
        const norm = await fsdp.clipGradNorm(1e9);
        await fsdp.summonFullParams(withGrads, async () => {
          let sum = 0;
          for (const parameter of fsdp.parameters()) {
            expect(parameter.grad!.shape).toEqual(parameter.shape);
            for (const value of (await parameter.grad!.data()) as Float32Array) sum += value * value;
          }
          expect(Math.sqrt(sum)).toBeCloseTo(norm, 5);
          for (const { grad } of fsdp.parameters()) grad!.device.backend.kernels.fill(grad!.span, 1);
        });
        const before = await fsdp.stateDict();
        new SGD(fsdp.parameters(), { lr: 1 }).step();
        const after = await fsdp.stateDict();
        for (const [name, { data }] of Object.entries(after)) {
          for (const [i, value] of Array.from(data, Number).entries()) {
            expect(value).toBeCloseTo(Number(before[name]!.data[i]) - 1, 5);
          }
        }
      });
    }
  });

  test("are none where there are none, and stay as they were without writeback", async () => {
    await runRanks(2, async (rank) => {
      const fsdp = await sharded(rank, { useOrigParams: true });
      await fsdp.summonFullParams(withGrads, () => {
        for (const { grad } of fsdp.parameters()) expect(grad).toBeUndefined();
      });
      await pass(rank, fsdp, 0);
      const norm = await fsdp.clipGradNorm(1e9);
      await fsdp.summonFullParams({ withGrads: true, writeback: false }, () => {
        for (const { grad } of fsdp.parameters()) grad!.device.backend.kernels.fill(grad!.span, 1);
      });
      expect(await fsdp.clipGradNorm(1e9)).toBe(norm);
    });
  });
});

describe("summonFullParams is refused", () => {
  const refused = (
    what: string,
    kind: typeof ConfigError | typeof StateError,
    body: (rank: TestRank) => Promise<unknown>,
  ) =>
    test(what, async () => {
      await runRanks(2, async (rank) => expect(await failure(body(rank))).toBeInstanceOf(kind));
    });

  refused("with writeback and rank0Only", ConfigError, async (rank) =>
    (await sharded(rank)).summonFullParams({ rank0Only: true }, () => {}),
  );
  refused("with gradients of flat parameters", ConfigError, async (rank) =>
    (await sharded(rank)).summonFullParams(withGrads, () => {}),
  );
  refused("with gradients and offload", ConfigError, async (rank) =>
    (await sharded(rank, { useOrigParams: true })).summonFullParams(
      { ...withGrads, offloadToCpu: rank.device },
      () => {},
    ),
  );
  refused("inside another", StateError, async (rank) => {
    const fsdp = await sharded(rank);
    await fsdp.summonFullParams({}, () => fsdp.summonFullParams({}, () => {}));
  });
  refused("inside forward", StateError, async (rank) => {
    const fsdp = await sharded(rank);
    fsdp.module.blocks[0]!.up.wrapCall((args, next) => fsdp.summonFullParams({}, () => next(args)));
    await rank.device.scope(async () => await fsdp.call(batch(rank, 0).x));
  });
  refused("for a forward pass inside", StateError, async (rank) => {
    const fsdp = await sharded(rank);
    await fsdp.summonFullParams({}, () => rank.device.scope(async () => await fsdp.call(batch(rank, 0).x)));
  });

  test("inside backward", async () => {
    await runRanks(2, async (rank) => {
      const fsdp = await sharded(rank, { useOrigParams: true });
      const refusals: Error[] = [];
      // Called when the block's gradients are there, while those of the root's first layer are not.
      fsdp.module.blocks[0]!.up.weight.postAccumulateGradHook = async () => {
        refusals.push(await failure(fsdp.summonFullParams({}, () => {})));
      };
      await pass(rank, fsdp, 0);
      expect(refusals).toHaveLength(1);
      expect(refusals[0]).toBeInstanceOf(StateError);
      await fsdp.summonFullParams({}, () => {});
    });
  });
});

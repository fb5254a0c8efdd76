/** PyTorch's test_fsdp_core TestParamInit, test_fsdp_misc, test_fsdp_meta, TestFSDPHybridShard: how a model starts. */
import { describe, expect, test } from "bun:test";
import { CheckpointError, ConfigError, StateError } from "../../../core/contracts/errors.ts";
import type { FullModelStateDict as StateDict } from "../../../core/engine/model-state-dict.ts";
import { noWrap, type WrapPolicy } from "../../../core/engine/wrap-policy.ts";
import { constant, GELU, Linear, Module } from "../../../core/nn/mod.ts";
import { initDeviceMesh } from "../../../core/runtime/device-mesh.ts";
import { Device } from "../../../core/tensor/device.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { FullyShardedDataParallel } from "../../../plugins/fsdp1/mod.ts";
import { fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { runRanks } from "../../support/ranks.ts";
import { meshFor, type Options, pass, sharded, stack, train, wrapBlocks } from "./harness.ts";

describe("initial values", () => {
  test("are the same in every world and wrapping, whether a model is sharded before or after it has them", async () => {
    const dicts: StateDict[] = [];
    for (const worldSize of [1, 2, 3, 4]) {
      for (const useOrigParams of [true, false]) {
        for (const late of [true, false]) {
          const [dict] = await runRanks(worldSize, async ({ device, mesh }) => {
            const model = stack();
            if (late) await model.to(device);
            const options = { mesh, useOrigParams, autoWrapPolicy: wrapBlocks };
            return await (await new FullyShardedDataParallel(model, options).to(device)).stateDict();
          });
          dicts.push(dict!);
        }
      }
    }
    for (const dict of dicts) expect(dict).toEqual(dicts[0]!);
  });

  test("are what paramInitFn makes them, which is asked for every module with parameters of its own", async () => {
    await runRanks(2, async ({ device, mesh }) => {
      const model = stack();
      const asked: string[] = [];
      const names = new Map([...model.namedModules()].map(([name, module]) => [module, name]));
      const fsdp = new FullyShardedDataParallel(model, {
        mesh,
        autoWrapPolicy: wrapBlocks,
        ignoredModules: [model.outer],
        paramInitFn: (module) => {
          asked.push(names.get(module)!);
          for (const parameter of Object.values(module)) {
            if (typeof parameter === "object" && parameter !== null && "initializer" in parameter) {
              parameter.initializer = constant(7);
            }
          }
        },
      });
      expect(asked).toEqual(["inner", "blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down"]);
      const { "inner.bias": bias, "outer.weight": weight } = await (await fsdp.to(device)).stateDict();
      expect(new Set(bias!.data as Float32Array)).toEqual(new Set([7]));
      expect(weight!.data[0]).not.toBe(7);
    });
  });

  test("are the first rank's everywhere with syncModuleStates, though ranks have other seeds", async () => {
    const [wanted] = await runRanks(1, async (rank) => await (await sharded(rank)).stateDict());
    for (const shardingStrategy of ["FULL_SHARD", "NO_SHARD", "HYBRID_SHARD"] as const) {
      for (const late of [true, false]) {
        for (const useOrigParams of [true, false]) {
          const dicts = await runRanks(4, async (rank) => {
            const device = new Device(rank.device.backend, { seed: 7 + rank.rank });
            const model = stack();
            if (late) await model.to(device);
            const mesh = await meshFor(rank, shardingStrategy);
            const options = {
              mesh,
              shardingStrategy,
              useOrigParams,
              autoWrapPolicy: wrapBlocks,
              syncModuleStates: true,
            };
            const fsdp = await FullyShardedDataParallel.create(model, options, device);
            return await fsdp.stateDict();
          });
          for (const dict of dicts) expect(dict).toEqual(wanted!);
        }
      }
    }
  });

  test("are made by the first rank alone with syncModuleStates, which no other rank's file is needed for", async () => {
    const asked = await runRanks(3, async ({ device, mesh, rank }) => {
      const model = stack();
      let count = 0;
      for (const parameter of model.parameters()) {
        parameter.initializer = ({ out }) => {
          count++;
          out.fill(1 as never);
        };
      }
      await FullyShardedDataParallel.create(model, { mesh, syncModuleStates: true }, device);
      return [rank, count];
    });
    expect(asked.map(([rank, count]) => [rank, count! > 0])).toEqual([
      [0, true],
      [1, false],
      [2, false],
    ]);
  });

  test("that the first rank cannot read end syncModuleStates on every rank", async () => {
    const running = runRanks(3, async ({ device, mesh }) => {
      const model = stack();
      for (const parameter of model.parameters()) {
        parameter.initializer = () => {
          throw new CheckpointError("no such file");
        };
      }
      const created = FullyShardedDataParallel.create(model, { mesh, syncModuleStates: true }, device);
      await expect(created).rejects.toThrow("no such file");
      return "told";
    });
    expect(await running).toEqual(["told", "told", "told"]);
  });

  test("cannot be synchronised without waiting", async () => {
    await runRanks(1, async ({ mesh }) => {
      const shard = () => new FullyShardedDataParallel(stack(), { mesh, syncModuleStates: true });
      expect(shard).toThrow(/takes await FullyShardedDataParallel.create/);
    });
  });
});

describe("a constructor refuses", () => {
  const refused = (
    what: string,
    message: RegExp,
    options: (mesh: Options & object) => object,
    worldSize = 2,
  ) =>
    test(what, async () => {
      await runRanks(worldSize, async ({ mesh }) => {
        const shard = () => new FullyShardedDataParallel(stack(), { mesh, ...options({}) });
        expect(shard).toThrow(ConfigError);
        expect(shard).toThrow(message);
      });
    });

  refused("unknown strategies and prefetches", /allowed are FULL_SHARD, SHARD_GRAD_OP/, () => ({
    shardingStrategy: "FULL",
  }));
  refused("unknown prefetches", /backwardPrefetch is "PRE"/, () => ({ backwardPrefetch: "PRE" }));
  refused("options that there are not", /"shardingstrategy" was given, allowed are mesh, /, () => ({
    shardingstrategy: "NO_SHARD",
  }));
  refused("dtypes that are not floating", /mixedPrecision.paramDtype is "int32"/, () => ({
    mixedPrecision: { paramDtype: "int32" },
  }));
  refused("hybrid strategies over one dim", /HYBRID_SHARD was given ranks in one dim/, () => ({
    shardingStrategy: "HYBRID_SHARD",
  }));
  refused("no ranks", /neither mesh nor processGroup/, () => ({ mesh: undefined }));
  refused(
    "options that a unit alone cannot have",
    /"useOrigParams" was given by the wrap policy for "blocks.0", allowed are/,
    () => ({
      autoWrapPolicy: (_module: unknown, name: string) => name === "blocks.0" && { useOrigParams: true },
    }),
  );

  test("ranks in two dims for strategies of one, two ways to name ranks, and meshes of three dims", async () => {
    await runRanks(4, async (rank) => {
      const mesh = await initDeviceMesh(rank.collective, [2, 2]);
      const shard = (options: object) => () => new FullyShardedDataParallel(stack(), options);
      expect(shard({ mesh })).toThrow(/FULL_SHARD was given ranks in two dims/);
      const group = mesh.group(0);
      expect(shard({ mesh, processGroup: group })).toThrow(/mesh and processGroup were both given/);
      expect(shard({ processGroup: group, shardingStrategy: "HYBRID_SHARD" })).toThrow(/ranks in one dim/);
      const cube = await initDeviceMesh(rank.collective, [2, 1, 2]);
      expect(shard({ mesh: cube })).toThrow(/a mesh of 3 dims/);
      // In place of a mesh.
      const processGroup = [mesh.group(1), mesh.group(0)] as const;
      const fsdp = shard({ processGroup, shardingStrategy: "HYBRID_SHARD" })();
      expect(fsdp.handles[0]!.shardNumel).toBe(Math.ceil(fsdp.handles[0]!.numel / 2));
    });
  });

  test("a module that was sharded already, and modules below it sharded otherwise", async () => {
    await runRanks(2, async ({ mesh }) => {
      const linear = new Linear(2, 2);
      new FullyShardedDataParallel(linear, { mesh });
      const other = fullyShard(new Linear(2, 2), { mesh });
      for (const sharded of [linear, other]) {
        expect(() => new FullyShardedDataParallel(sharded, { mesh })).toThrow(StateError);
      }
      for (const name of ["useOrigParams", "limitAllGathers"] as const) {
        const model = stack();
        new FullyShardedDataParallel(model.blocks[0]!, { mesh, useOrigParams: true, limitAllGathers: true });
        const shard = () =>
          new FullyShardedDataParallel(model, {
            mesh,
            useOrigParams: true,
            limitAllGathers: true,
            [name]: false,
          });
        expect(shard).toThrow(new RegExp(`${name} is false, but true for the Block below`));
      }
    });
  });
});

test("a model without parameters, or whose every parameter is ignored, computes as it is", async () => {
  await runRanks(2, async (rank) => {
    const { device, mesh } = rank;
    const gelu = await new FullyShardedDataParallel(new GELU(), { mesh }).to(device);
    await device.scope(async () => {
      expect((await gelu.call(device.ones([2, 3]))).shape).toEqual([2, 3]);
    });
    expect(await gelu.stateDict()).toEqual({});
    const model = stack();
    const fsdp = new FullyShardedDataParallel(model, { mesh, ignoredModules: [model], onWarning: () => {} });
    await pass(rank, await fsdp.to(device), 0);
    for (const { grad, shape } of fsdp.parameters()) expect(grad!.shape).toEqual(shape);
    expect(await fsdp.clipGradNorm(1)).toBeGreaterThan(0);
  });
});

test("parameters that are tied across units are refused by name", async () => {
  class Tied extends Module<[x: Tensor], Tensor> {
    readonly first = new Linear(3, 3);
    readonly second = new Linear(3, 3);
    constructor() {
      super();
      Object.defineProperty(this.second, "weight", { value: this.first.weight, enumerable: true });
    }
    override async forward(x: Tensor): Promise<Tensor> {
      return await this.second.call(await this.first.call(x));
    }
  }
  await runRanks(2, async ({ mesh }) => {
    for (const useOrigParams of [true, false]) {
      const shard = (autoWrapPolicy: WrapPolicy) =>
        new FullyShardedDataParallel(new Tied(), { mesh, useOrigParams, autoWrapPolicy });
      expect(() => shard((_module, name) => name === "first")).toThrow(/"second.weight" is tied to/);
      expect(() => shard((_module, name) => name === "first")).toThrow(ConfigError);
      expect(shard(noWrap).handles.map(({ numel, paddingNumel }) => numel - paddingNumel)).toEqual([15]);
    }
  });
});

describe("on one rank", () => {
  test("a strategy that was asked for is pointless, which is said", async () => {
    await runRanks(1, async ({ mesh }) => {
      const said: string[] = [];
      const onWarning = (text: string) => said.push(text);
      new FullyShardedDataParallel(stack(), { mesh, onWarning });
      new FullyShardedDataParallel(stack(), { mesh, onWarning, shardingStrategy: "NO_SHARD" });
      expect(said).toEqual([]);
      new FullyShardedDataParallel(stack(), { mesh, onWarning, shardingStrategy: "SHARD_GRAD_OP" });
      expect(said).toEqual([expect.stringContaining("SHARD_GRAD_OP over one rank")]);
    });
  });
});

describe("units of other options", () => {
  test("compute as the others do, each with the strategy that its policy gave", async () => {
    const [plain] = await runRanks(2, (rank) => train(rank));
    const [mixed] = await runRanks(2, (rank) =>
      train(rank, {
        autoWrapPolicy: (_module, name) =>
          name === "blocks.0"
            ? { shardingStrategy: "NO_SHARD" }
            : name === "blocks.1" && { shardingStrategy: "SHARD_GRAD_OP" },
      }),
    );
    for (const [i, loss] of mixed!.losses.entries()) expect(loss).toBeCloseTo(plain!.losses[i]!, 5);
    for (const [i, norm] of mixed!.norms.entries()) expect(norm).toBeCloseTo(plain!.norms[i]!, 5);
  });

  test("may be made by hand, innermost first, and are named as if they were not", async () => {
    const wrapped = await runRanks(2, async (rank) => {
      const model = stack();
      const { mesh } = rank;
      for (const block of model.blocks) new FullyShardedDataParallel(block, { mesh });
      const fsdp = await new FullyShardedDataParallel(model, { mesh }).to(rank.device);
      await pass(rank, fsdp, 0);
      return { names: [...fsdp.namedParameters()].map(([name]) => name), dict: await fsdp.stateDict() };
    });
    const automatic = await runRanks(2, async (rank) => await (await sharded(rank)).stateDict());
    expect(wrapped[0]!.names).toEqual(["_flat_param", "blocks.0._flat_param", "blocks.1._flat_param"]);
    expect(wrapped[0]!.dict).toEqual(automatic[0]!);
  });
});

import { describe, expect, test } from "bun:test";
import { cpuPlugin } from "../../../backends/cpu/mod.ts";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { modulesToWrap } from "../../../core/engine/wrap-policy.ts";
import type { AnyModule } from "../../../core/nn/module.ts";
import { createHostDevice } from "../../../core/runtime/host-device.ts";
import { createRegistry, usePlugins } from "../../../core/runtime/registry.ts";
import type { ShardingConfig } from "../../../core/runtime/run-config.ts";
import { type ShardModelOptions, shardModel } from "../../../core/runtime/shard-model.ts";
import { SHARDING, type ShardingOptions } from "../../../core/runtime/sharding-version.ts";
import { Stack } from "../../support/models.ts";
import { runRanks } from "../../support/ranks.ts";

const CONFIG: ShardingConfig = {
  version: "noting",
  settings: {},
  reshardAfterForward: true,
  forwardPrefetch: false,
  cpuRamEfficientLoading: false,
  offload: false,
  activationCheckpointing: false,
  wrapPolicy: "TRANSFORMER_BASED_WRAP",
  minNumParams: 0,
  stateDictType: "SHARDED_STATE_DICT",
};

/** What a version is asked for by a configuration, and the names of the units, as rank 0 of `worldSize` sees it. */
async function asked(
  config: Partial<ShardingConfig>,
  more: (model: Stack) => Partial<ShardModelOptions> = () => ({}),
  worldSize = 1,
) {
  const [seen] = await runRanks(worldSize, async ({ collective }) => {
    const registry = createRegistry({ root: "" });
    let given: ShardingOptions | undefined;
    const shard = (_: AnyModule, options: ShardingOptions) => {
      given = options;
    };
    const options = { depth: { type: "integer", default: 3, description: "" } } as const;
    registry.register(SHARDING, "noting", { options, shard });
    registry.register(SHARDING, "fsdp1", { shard });
    const model = new Stack({ layers: 2, features: 3, width: 4, hidden: 8 });
    const names = new Map([...model.namedModules()].map(([name, module]) => [module, name]));
    const place = { collective, localWorldSize: 2, blockClasses: ["Block"] };
    await shardModel(registry, model, { ...CONFIG, ...config }, { ...place, ...more(model) });
    const units = modulesToWrap(model, given!.wrap).map((module) => names.get(module));
    return { options: given!, units, shape: given!.mesh.shape, dimNames: given!.mesh.dimNames };
  });
  return seen!;
}

describe("shardModel", () => {
  test("asks the version for units of the model's blocks, by its own rule for the root", async () => {
    const { options, units, shape } = await asked({}, undefined, 2);
    expect(units).toEqual(["blocks.0", "blocks.1"]);
    expect(shape).toEqual([2]);
    expect(options).toMatchObject({
      reshardAfterForward: undefined,
      forwardPrefetch: false,
      settings: { depth: 3 },
    });
    expect((await asked({ reshardAfterForward: false })).options.reshardAfterForward).toBe(false);
    expect((await asked({ reshardAfterForward: 2 })).options.reshardAfterForward).toBe(2);
  });

  test("knows policies by name, and each version's rule of size", async () => {
    expect((await asked({ wrapPolicy: "NO_WRAP" })).units).toEqual([]);
    expect((await asked({ wrapClasses: ["Linear"] })).units).toContain("blocks.0.up");
    // A block has 4 * 8 + 8 + 8 * 4 + 4 = 76 elements, of which `up` has 40 and `down` 36.
    const size = { wrapPolicy: "SIZE_BASED_WRAP" } as const;
    expect((await asked({ ...size, minNumParams: 39 })).units).toEqual([
      "blocks.0.up",
      "blocks.0",
      "blocks.1.up",
      "blocks.1",
    ]);
    expect((await asked({ ...size, minNumParams: 40 })).units).toEqual(["blocks.0", "blocks.1"]);
    expect((await asked({ ...size, minNumParams: 40, version: "fsdp1" })).units).toEqual([
      "blocks.0.up",
      "blocks.1.up",
    ]);
    await expect(asked({ wrapClasses: ["T5Block"] })).rejects.toThrow('class "T5Block" is not in the model');
  });

  test("leaves what the root reads to the root, and modules around it", async () => {
    const always = { wrapPolicy: "SIZE_BASED_WRAP", minNumParams: 0 } as const;
    const { units } = await asked(always, (model) => ({ rootModules: [model.blocks[0]!.up] }));
    expect(units).toEqual(["inner", "blocks.0.down", "blocks.1.up", "blocks.1.down", "blocks.1", "outer"]);
  });

  test("names parameters to leave alone by a pattern for whole names, or by modules", async () => {
    const ignored = async (...args: Parameters<typeof asked>) =>
      [...(await asked(...args)).options.ignored!].map(({ shape }) => shape.join("x"));
    expect(await ignored({ ignoredModules: "blocks\\.\\d\\.up" })).toEqual(["8x4", "8", "8x4", "8"]);
    expect(await ignored({}, (model) => ({ ignoredModules: [model.outer] }))).toEqual(["1x4", "1"]);
    await expect(asked({ ignoredModules: "block" })).rejects.toThrow(
      'cannot use fsdp_ignored_modules: no module\'s whole name fits "block", they are inner, blocks.0',
    );
  });

  test("arranges ranks: replicas by shards, one replica a host for hybrid strategies", async () => {
    expect(await asked({ replicas: 2 }, undefined, 4)).toMatchObject({
      shape: [2, 2],
      dimNames: ["replicate", "shard"],
    });
    const hybrid = { version: "fsdp1", strategy: "HYBRID_SHARD" } as const;
    expect(await asked(hybrid, undefined, 4)).toMatchObject({ shape: [2, 2] });
    expect(await asked({ ...hybrid, replicas: 1 }, undefined, 2)).toMatchObject({ shape: [1, 2] });
    await expect(asked({ replicas: 3 }, undefined, 4)).rejects.toThrow("a dp_replicate_size of 3");
    await expect(asked({ replicas: 2, strategy: "FULL_SHARD" }, undefined, 4)).rejects.toThrow(
      "given fsdp_sharding_strategy FULL_SHARD, allowed with it are HYBRID_SHARD",
    );
  });

  test("gives FSDP1 what is its own, as settings", async () => {
    const { options } = await asked(
      { version: "fsdp1", strategy: "NO_SHARD", useOrigParams: false, backwardPrefetch: "BACKWARD_POST" },
      () => ({ settings: { limitAllGathers: false, paramInitFn: undefined } }),
    );
    expect(options.backwardPrefetch).toBe("post");
    expect(options.settings).toEqual({
      shardingStrategy: "NO_SHARD",
      useOrigParams: false,
      limitAllGathers: false,
    });
  });

  test("refuses what cannot be done", async () => {
    await expect(asked({ offload: true })).rejects.toThrow(ConfigError);
    await expect(asked({ forwardPrefetch: 2 })).rejects.toThrow("this FSDP version has true and false");
    await expect(asked({ settings: { deep: 1 } })).rejects.toThrow('given "deep"');
    await expect(asked({ version: "fsdp9" })).rejects.toThrow('unknown FSDP version: given "fsdp9"');
    await expect(asked({ wrapPolicy: "NO_WRAP", activationCheckpointing: true })).rejects.toThrow(
      "cannot use fsdp_activation_checkpointing",
    );
  });

  test("offloads to a device in host memory", async () => {
    const registry = createRegistry({ root: "" });
    usePlugins(registry, [cpuPlugin]);
    const device = await createHostDevice(registry, { rank: 0, localWorldSize: 1 }, 0);
    const { options } = await asked({ offload: true }, () => ({ offload: { device } }));
    expect(options.offload).toEqual({ device });
    expect((await asked({}, () => ({ offload: { device } }))).options.offload).toBeUndefined();
    await device.backend.dispose();
  });
});

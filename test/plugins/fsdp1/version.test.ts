import { describe, expect, test } from "bun:test";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { unitOf } from "../../../core/engine/shard-module.ts";
import { moduleWrap } from "../../../core/engine/wrap-policy.ts";
import { initDeviceMesh } from "../../../core/runtime/device-mesh.ts";
import { SHARDING, type ShardingOptions } from "../../../core/runtime/sharding-version.ts";
import { registry } from "../../../mod.ts";
import { Block, Stack } from "../../support/models.ts";
import { runRanks } from "../../support/ranks.ts";

const wrap = moduleWrap([Block]);
const model = () => new Stack({ layers: 1, features: 3, width: 4, hidden: 5 });

describe("the registered version fsdp1", () => {
  const { shard } = registry.get(SHARDING, "fsdp1");

  /** What the engine was told of the block's unit. */
  const told = (options: Partial<ShardingOptions>, shape: readonly number[] = [4]) =>
    runRanks(4, async (rank) => {
      const stack = model();
      shard(stack, { mesh: await initDeviceMesh(rank.collective, shape), wrap, ...options });
      const { reshardAfterForward, backwardPrefetch, forwardPrefetch, group, shards } = unitOf(
        stack.blocks[0]!,
      )!;
      const ranks = [group.size, shards.replicate?.size ?? 1];
      return { reshardAfterForward, backwardPrefetch, forwardPrefetch, ranks };
    }).then(([first]) => first!);

  test("shards fully by default, and frees all but the root after forward", async () => {
    expect(await told({})).toEqual({
      reshardAfterForward: undefined,
      backwardPrefetch: "pre",
      forwardPrefetch: false,
      ranks: [4, 1],
    });
  });

  test("takes the strategy that settings name, else the one that reshardAfterForward and the mesh amount to", async () => {
    const named = (shardingStrategy: string, shape?: readonly number[]) =>
      told({ settings: { shardingStrategy } }, shape);
    expect(await named("SHARD_GRAD_OP")).toMatchObject({ reshardAfterForward: false, ranks: [4, 1] });
    expect(await named("NO_SHARD")).toMatchObject({ reshardAfterForward: false, ranks: [1, 4] });
    expect(await named("HYBRID_SHARD", [2, 2])).toMatchObject({
      reshardAfterForward: undefined,
      ranks: [2, 2],
    });
    expect(await told({ reshardAfterForward: false })).toMatchObject({
      reshardAfterForward: false,
      ranks: [4, 1],
    });
    expect(await told({}, [2, 2])).toMatchObject({ reshardAfterForward: undefined, ranks: [2, 2] });
    expect(await told({ reshardAfterForward: false }, [2, 2])).toMatchObject({
      reshardAfterForward: false,
      ranks: [2, 2],
    });
  });

  test("passes on what is gathered ahead", async () => {
    expect(await told({ backwardPrefetch: "post", forwardPrefetch: true })).toMatchObject({
      backwardPrefetch: "post",
      forwardPrefetch: true,
    });
    expect(await told({ backwardPrefetch: "none" })).toMatchObject({ backwardPrefetch: "none" });
  });

  test("lets modules list their own parameters, flat or not, so that checkpoints have the model's names", async () => {
    await runRanks(2, async ({ mesh }) => {
      for (const useOrigParams of [true, false]) {
        const stack = model();
        shard(stack, { mesh, wrap, settings: { useOrigParams } });
        expect([...stack.namedParameters()].map(([name]) => name)).toEqual(
          [...model().namedParameters()].map(([name]) => name),
        );
        // Gaps of up to 3 elements come with original parameters.
        expect(unitOf(stack.blocks[0]!)!.shardNumel).toBe(
          useOrigParams ? Math.ceil(52 / 2) : Math.ceil(49 / 2),
        );
      }
    });
  });

  test("refuses what FSDP1 does not have, by name", async () => {
    await runRanks(2, async ({ mesh }) => {
      const refused = (options: Partial<ShardingOptions>, message: RegExp) => {
        expect(() => shard(model(), { mesh, wrap, ...options })).toThrow(ConfigError);
        expect(() => shard(model(), { mesh, wrap, ...options })).toThrow(message);
      };
      refused({ reshardAfterForward: 2 }, /reshardAfterForward is 2, allowed are true and false, or FSDP2/);
      refused({ precision: { outputDtype: "float32" } }, /outputDtype is "float32"/);
      refused({ settings: { shardingStrategy: "ZERO" } }, /setting "shardingStrategy"/);
      refused({ settings: { useOrigParams: 1 } }, /setting "useOrigParams"/);
      refused({ settings: { shards: 3 } }, /setting "shards"/);
    });
  });
});

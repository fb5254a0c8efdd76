/** Each misuse gives its kind of error, at the earliest moment, with a message that says what to do. */
import { describe, expect, test } from "bun:test";
import { ConfigError, ShapeError, StateError } from "../../../core/contracts/errors.ts";
import { noWrap } from "../../../core/engine/wrap-policy.ts";
import { constant, Linear, Module, Parameter } from "../../../core/nn/mod.ts";
import type { DeviceMesh } from "../../../core/runtime/device-mesh.ts";
import { initDeviceMesh } from "../../../core/runtime/device-mesh.ts";
import { createRegistry, usePlugins } from "../../../core/runtime/registry.ts";
import { SHARDING, type ShardingOptions } from "../../../core/runtime/sharding-version.ts";
import { type FullyShardOptions, fsdp2Plugin, fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import { forwardBackward, smallStack } from "../../support/training.ts";

/** A module whose only parameter has a shape. */
class Holder extends Module<[], void> {
  readonly weight: Parameter;
  constructor(shape: readonly number[]) {
    super();
    this.weight = new Parameter(shape, constant(1));
  }
  override forward(): void {}
}

type Kind = typeof ConfigError | typeof StateError | typeof ShapeError;

const calls: readonly [string, Kind, RegExp, (mesh: DeviceMesh) => unknown][] = [
  [
    "a scalar parameter",
    ShapeError,
    /"weight" failed: it has no dims, give it shape \[1\]/,
    (mesh) => fullyShard(new Holder([]), { mesh }),
  ],
  [
    "a number that does not divide",
    ConfigError,
    /reshardAfterForward 3, allowed are .* divide the 2 ranks/,
    (mesh) => fullyShard(new Holder([2]), { mesh, reshardAfterForward: 3 }),
  ],
  [
    "a number below 1",
    ConfigError,
    /reshardAfterForward 0/,
    (mesh) => fullyShard(new Holder([2]), { mesh, reshardAfterForward: 0 }),
  ],
  [
    "no number",
    ConfigError,
    /reshardAfterForward "2"/,
    (mesh) => fullyShard(new Holder([2]), { mesh, reshardAfterForward: "2" as never }),
  ],
  [
    "a dim that there is not",
    ShapeError,
    /"weight".*dim 2 of a tensor of rank 2, allowed are -2 to 1/,
    (mesh) => fullyShard(new Holder([2, 2]), { mesh, shardPlacementFn: () => 2 }),
  ],
  [
    "a dtype that is not floating",
    ConfigError,
    /reduceDtype is "int64", allowed are/,
    (mesh) => fullyShard(new Holder([2]), { mesh, mpPolicy: { reduceDtype: "int64" } }),
  ],
  [
    "an offload policy without a device",
    ConfigError,
    /offloadPolicy without a device/,
    (mesh) => fullyShard(new Holder([2]), { mesh, offloadPolicy: true as never }),
  ],
  [
    "modules to ignore",
    ConfigError,
    /ignoredParams.*allowed are parameters/,
    (mesh) => fullyShard(new Holder([2]), { mesh, ignoredParams: [new Linear(1, 1)] as never }),
  ],
  ["an empty list", ConfigError, /empty list of modules/, (mesh) => fullyShard([], { mesh })],
  [
    "half an extension",
    ConfigError,
    /"weight".*1 of two methods/,
    (mesh) => {
      const model = new Holder([2]);
      model.weight.allGatherExtension = { preAllGather: () => ({ inputs: [], metadata: 0 }) } as never;
      return fullyShard(model, { mesh });
    },
  ],
  [
    "a module that was sharded",
    StateError,
    /this Holder was sharded already/,
    (mesh) => fullyShard(fullyShard(new Holder([2]), { mesh }), { mesh }),
  ],
  [
    "a module of a list that was sharded",
    StateError,
    /this Linear was sharded already/,
    (mesh) => fullyShard([new Holder([2]), fullyShard(new Linear(1, 1), { mesh })], { mesh }),
  ],
];

describe("fullyShard refuses", () => {
  for (const [what, kind, message, call] of calls) {
    test(what, async () => {
      await runRanks(2, async ({ mesh }) => {
        expect(() => call(mesh)).toThrow(kind);
        expect(() => call(mesh)).toThrow(message);
      });
    });
  }

  test("meshes of more than two dims", async () => {
    await runRanks(1, async ({ collective }) => {
      const mesh = await initDeviceMesh(collective, [1, 1, 1]);
      expect(() => fullyShard(new Holder([2]), { mesh })).toThrow(/a mesh of 3 dims, allowed are 1 .* and 2/);
    });
  });
});

/** The error of the first step. */
const stepError = (rank: TestRank, model: ReturnType<typeof smallStack>) =>
  forwardBackward(rank, model, 0).then(
    () => undefined,
    (reason: unknown) => reason,
  );

describe("the first forward refuses", () => {
  const shard = (rank: TestRank, options: Partial<FullyShardOptions> = {}) => {
    const model = smallStack(1);
    fullyShard(model.blocks[0]!, { mesh: rank.mesh, ...options });
    return fullyShard(model, { mesh: rank.mesh, ...options });
  };

  test("a model that is on no device, by its parameters' names", async () => {
    await runRanks(2, async (rank) => {
      const error = await stepError(rank, shard(rank));
      expect(error).toBeInstanceOf(StateError);
      expect(String(error)).toMatch(/call await model\.to\(device\) first .*"inner\.weight"/);
    });
  });

  test("a root after one of its modules ran by itself", async () => {
    await runRanks(2, async (rank) => {
      const model = shard(rank);
      await model.to(rank.device);
      await rank.device.scope(async () => void (await model.blocks[0]!.call(rank.device.ones([1, 6]))));
      expect(String(await stepError(rank, model))).toMatch(
        /StateError.*ran on its own before, call the root first/,
      );
    });
  });

  test("a root that is one of a list", async () => {
    await runRanks(2, async (rank) => {
      const [model] = fullyShard([smallStack(1), new Holder([2])], { mesh: rank.mesh });
      await model.to(rank.device);
      expect(String(await stepError(rank, model))).toMatch(
        /StateError.*cannot be the root, call the module that contains/,
      );
    });
  });
});

describe("the version plugin", () => {
  test("refuses what FSDP2 does not have, and shards with the rest", async () => {
    const registry = createRegistry({ root: import.meta.url });
    usePlugins(registry, [fsdp2Plugin]);
    const version = registry.get(SHARDING, "fsdp2");
    await runRanks(2, async (rank) => {
      const shard = (options: Partial<ShardingOptions>) =>
        version.shard(smallStack(1), { mesh: rank.mesh, wrap: noWrap, ...options });
      expect(() => shard({ backwardPrefetch: "post" })).toThrow(
        /backwardPrefetch is "post", allowed is "pre"/,
      );
      expect(() => shard({ settings: { useOrigParams: true } })).toThrow(/setting "useOrigParams"/);
      shard({ backwardPrefetch: "pre", settings: {}, reshardAfterForward: 2 });
    });
  });
});

/** What each FSDP version makes of an option. */
import { describe, expect, test } from "bun:test";
import { ConfigError } from "../../../../core/contracts/errors.ts";
import { givenByCode } from "../../../../plugins/accelerate/config/given.ts";
import { OPTION_NAMES, optionOf } from "../../../../plugins/accelerate/config/options.ts";
import { resolveOptions } from "../../../../plugins/accelerate/config/resolve.ts";

const resolve = (values: Parameters<typeof givenByCode>[0]) => resolveOptions(givenByCode(values));

describe("without options", () => {
  test("version 2 holds, with the table's defaults, and nothing is warned of", () => {
    const { values, warnings } = resolve({});
    expect(warnings).toEqual([]);
    expect(values).toEqual({
      fsdpVersion: 2,
      reshardAfterForward: true,
      forwardPrefetch: false,
      cpuRamEfficientLoading: false,
      cpuOffload: false,
      autoWrapPolicy: "TRANSFORMER_BASED_WRAP",
      transformerClsNamesToWrap: undefined,
      minNumParams: 100_000_000,
      ignoredModules: undefined,
      stateDictType: "SHARDED_STATE_DICT",
      activationCheckpointing: false,
    });
  });

  test("version 1 shards fully, prefetches, and keeps the model's parameters", () => {
    const { values, warnings } = resolve({ fsdpVersion: 1 });
    expect(warnings).toEqual([]);
    expect(values).toMatchObject({
      shardingStrategy: "FULL_SHARD",
      backwardPrefetch: "BACKWARD_PRE",
      useOrigParams: true,
      syncModuleStates: false,
      stateDictType: "FULL_STATE_DICT",
    });
    expect(values.reshardAfterForward).toBeUndefined();
  });
});

describe("version 2", () => {
  test("ignores what it has no use for, once each, and says what to write instead", () => {
    const { values, warnings } = resolve({
      shardingStrategy: "SHARD_GRAD_OP",
      backwardPrefetch: "BACKWARD_POST",
      useOrigParams: false,
      syncModuleStates: true,
    });
    expect(warnings).toEqual([
      "shardingStrategy is ignored by FSDP version 2: deprecated in favour of fsdp_reshard_after_forward: SHARD_GRAD_OP is fsdp_reshard_after_forward: false",
      "backwardPrefetch is ignored by FSDP version 2: FSDP2 always gathers the next unit before this one's gradients (BACKWARD_PRE), remove it",
      "useOrigParams is ignored by FSDP version 2: FSDP2 always keeps the model's own parameters, remove it",
      "syncModuleStates is ignored by FSDP version 2: all ranks begin with the same values, remove it",
    ]);
    for (const name of [
      "shardingStrategy",
      "backwardPrefetch",
      "useOrigParams",
      "syncModuleStates",
    ] as const) {
      expect(values[name]).toBeUndefined();
    }
    expect(values.reshardAfterForward).toBe(true);
  });

  test("names the equivalent of every strategy", () => {
    for (const [strategy, says] of [
      ["FULL_SHARD", "fsdp_reshard_after_forward: true"],
      ["NO_SHARD", "dp_replicate_size of as many"],
      ["HYBRID_SHARD", "true with a dp_replicate_size"],
      ["HYBRID_SHARD_ZERO2", "false with a dp_replicate_size"],
    ]) {
      expect(resolve({ shardingStrategy: strategy }).warnings[0]).toContain(says!);
    }
  });

  test("takes numbers, forward prefetch, and full state dicts, but no local ones", () => {
    const { values, warnings } = resolve({
      reshardAfterForward: 4,
      forwardPrefetch: true,
      stateDictType: "FULL_STATE_DICT",
    });
    expect(warnings).toEqual([]);
    expect(values).toMatchObject({
      reshardAfterForward: 4,
      forwardPrefetch: true,
      stateDictType: "FULL_STATE_DICT",
    });
    expect(() => resolve({ stateDictType: "LOCAL_STATE_DICT" })).toThrow(
      new ConfigError(
        'cannot use stateDictType: given "LOCAL_STATE_DICT", FSDP version 2 has "SHARDED_STATE_DICT" and "FULL_STATE_DICT"',
      ),
    );
  });
});

describe("version 1", () => {
  const resolve1 = (values: Parameters<typeof givenByCode>[0]) => resolve({ fsdpVersion: 1, ...values });

  test("keeps every option that is its own", () => {
    const own = {
      shardingStrategy: "HYBRID_SHARD",
      backwardPrefetch: "NO_PREFETCH",
      forwardPrefetch: true,
      useOrigParams: false,
      syncModuleStates: true,
      stateDictType: "LOCAL_STATE_DICT",
    };
    const { values, warnings } = resolve1(own);
    expect(values).toMatchObject(own as Record<string, unknown>);
    expect(warnings).toEqual([]);
  });

  test("takes a strategy that stands under reshardAfterForward, unless one is given, and nothing else there", () => {
    expect(resolve1({ reshardAfterForward: "shard_grad_op" }).values.shardingStrategy).toBe("SHARD_GRAD_OP");
    expect(
      resolve1({ reshardAfterForward: "SHARD_GRAD_OP", shardingStrategy: "NO_SHARD" }).values
        .shardingStrategy,
    ).toBe("NO_SHARD");
    for (const value of [true, false, 2, "true"]) {
      expect(() => resolve1({ reshardAfterForward: value })).toThrow(
        "with FSDP version 1, whose fsdp_sharding_strategy says it",
      );
    }
  });

  test("sends rank 0's values when it alone reads them, and says so when that was refused", () => {
    const loading = { cpuRamEfficientLoading: true };
    expect(resolve1(loading)).toMatchObject({ values: { syncModuleStates: true }, warnings: [] });
    const forced = resolve1({ ...loading, syncModuleStates: false });
    expect(forced.values.syncModuleStates).toBe(true);
    expect(forced.warnings).toEqual([
      "fsdp_sync_module_states is set to true: fsdp_cpu_ram_efficient_loading needs it",
    ]);
  });
});

test("a version's registered name is its number, and another's gets every option", () => {
  expect(resolve({ fsdpVersion: "fsdp1" }).values.fsdpVersion).toBe(1);
  expect(resolve({ fsdpVersion: "fsdp2" }).values.fsdpVersion).toBe(2);
  const all = {
    shardingStrategy: "NO_SHARD",
    backwardPrefetch: "BACKWARD_POST",
    reshardAfterForward: false,
    useOrigParams: false,
    stateDictType: "LOCAL_STATE_DICT",
  };
  const { values, warnings } = resolve({ fsdpVersion: "last-dim", ...all });
  expect(values).toMatchObject({ fsdpVersion: "last-dim", ...all } as Record<string, unknown>);
  expect(warnings).toEqual([]);
  const { useOrigParams, backwardPrefetch } = resolve({ fsdpVersion: "last-dim" }).values;
  expect([useOrigParams, backwardPrefetch]).toEqual([undefined, undefined]);
});

test("a bad value is an error in every version, even where it would be ignored", () => {
  for (const fsdpVersion of [1, 2, "other"]) {
    expect(() => resolve({ fsdpVersion, shardingStrategy: "SOME_SHARD" })).toThrow(
      'cannot use shardingStrategy: given "SOME_SHARD"',
    );
  }
});

test("every rule of the table is one that resolving follows", () => {
  for (const name of OPTION_NAMES) {
    for (const [version, rule] of [
      [1, optionOf(name).v1],
      [2, optionOf(name).v2],
    ] as const) {
      if (rule?.ignored === undefined) continue;
      const value = optionOf(name).choices?.[0] ?? true;
      const { values, warnings } = resolve({ fsdpVersion: version, [name]: value });
      expect(values[name]).toBeUndefined();
      expect(warnings).toHaveLength(1);
      expect(warnings[0]).toContain(rule.ignored);
    }
  }
});

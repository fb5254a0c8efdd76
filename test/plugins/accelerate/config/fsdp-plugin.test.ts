import { describe, expect, spyOn, test } from "bun:test";
import process from "node:process";
import { ConfigError } from "../../../../core/contracts/errors.ts";
import type { AnyModule } from "../../../../core/nn/module.ts";
import { asRank } from "../../../../core/runtime/current-rank.ts";
import type { Rank } from "../../../../core/runtime/launch.ts";
import { packSettings } from "../../../../plugins/accelerate/config/launch-settings.ts";
import { OPTION_NAMES, optionOf } from "../../../../plugins/accelerate/config/options.ts";
import {
  FullyShardedDataParallelPlugin,
  type FullyShardedDataParallelPluginOptions,
} from "../../../../plugins/accelerate/mod.ts";

/** A plugin in an environment of its own; what it prints is dropped. */
function plugin(options: FullyShardedDataParallelPluginOptions = {}, env: Record<string, string> = {}) {
  return quietly(() => new FullyShardedDataParallelPlugin(options, env)).value;
}

function quietly<T>(body: () => T): { readonly value: T; readonly printed: string } {
  let printed = "";
  const write = spyOn(process.stderr, "write").mockImplementation((text) => {
    printed += String(text);
    return true;
  });
  try {
    return { value: body(), printed };
  } finally {
    write.mockRestore();
  }
}

describe("FullyShardedDataParallelPlugin", () => {
  test("without options is FSDP2 with its defaults, as plain data that reaches every rank", () => {
    const made = plugin();
    expect(made.fsdpVersion).toBe(2);
    expect(made.config).toMatchObject({
      version: "fsdp2",
      reshardAfterForward: true,
      wrapPolicy: "TRANSFORMER_BASED_WRAP",
      offload: false,
      stateDictType: "SHARDED_STATE_DICT",
    });
    expect(structuredClone(made.config)).toEqual(made.config);
    expect(made.warnings).toEqual([]);
    const fields = new Set<string>([...Object.keys(made), "stateDictType"]);
    for (const name of OPTION_NAMES) {
      const applies = optionOf(name).v2?.ignored === undefined;
      if (applies) expect(fields).toContain(name);
    }
  });

  // Accelerate's own integration tests: each option by its variable and by its argument gives the same plugin.
  const same: readonly [FullyShardedDataParallelPluginOptions, Record<string, string>][] = [
    [{ fsdpVersion: 1, shardingStrategy: "NO_SHARD" }, { FSDP_SHARDING_STRATEGY: "NO_SHARD" }],
    [{ fsdpVersion: 1, backwardPrefetch: "BACKWARD_POST" }, { FSDP_BACKWARD_PREFETCH: "2" }],
    [{ fsdpVersion: 1, useOrigParams: false }, { FSDP_USE_ORIG_PARAMS: "false" }],
    [{ fsdpVersion: 1, stateDictType: "LOCAL_STATE_DICT" }, { FSDP_STATE_DICT_TYPE: "LOCAL_STATE_DICT" }],
    [{ reshardAfterForward: false }, { FSDP_RESHARD_AFTER_FORWARD: "false" }],
    [{ reshardAfterForward: 2 }, { FSDP_RESHARD_AFTER_FORWARD: "2" }],
    [{ forwardPrefetch: true }, { FSDP_FORWARD_PREFETCH: "true" }],
    [{ cpuOffload: { offloadParams: true } }, { FSDP_OFFLOAD_PARAMS: "true" }],
    [{ cpuRamEfficientLoading: true }, { FSDP_CPU_RAM_EFFICIENT_LOADING: "true" }],
    [{ autoWrapPolicy: "NO_WRAP" }, { FSDP_AUTO_WRAP_POLICY: "no_wrap" }],
    [{ transformerClsNamesToWrap: ["A", "B"] }, { FSDP_TRANSFORMER_CLS_TO_WRAP: "A,B" }],
    [
      { autoWrapPolicy: "SIZE_BASED_WRAP", minNumParams: 2000 },
      { FSDP_AUTO_WRAP_POLICY: "SIZE_BASED_WRAP", FSDP_MIN_NUM_PARAMS: "2000" },
    ],
    [{ ignoredModules: "h\\.0" }, { FSDP_IGNORED_MODULES: "h\\.0" }],
    [{ activationCheckpointing: true }, { FSDP_ACTIVATION_CHECKPOINTING: "1" }],
  ];
  for (const [options, env] of same) {
    test(`${Object.keys(env).join(", ")} says what the argument says`, () => {
      const version: Record<string, string> = options.fsdpVersion === 1 ? { FSDP_VERSION: "1" } : {};
      expect(plugin({}, { ...version, ...env }).config).toEqual(plugin(options).config);
    });
  }

  test("an argument goes before a variable", () => {
    const env = { FSDP_MIN_NUM_PARAMS: "7", FSDP_VERSION: "1", FSDP_AUTO_WRAP_POLICY: "" };
    expect(plugin({ minNumParams: 9, fsdpVersion: 2 }, env)).toMatchObject({
      minNumParams: 9,
      fsdpVersion: 2,
      autoWrapPolicy: "TRANSFORMER_BASED_WRAP",
    });
  });

  test("a policy, modules and functions of one's own go beside the plain data", () => {
    const wrap = () => true;
    const modules: AnyModule[] = [];
    const paramInitFn = () => {};
    const made = plugin({ fsdpVersion: 1, autoWrapPolicy: wrap, ignoredModules: modules, paramInitFn });
    expect(made.overrides).toEqual({
      wrap,
      ignoredModules: modules,
      settings: { limitAllGathers: undefined, paramInitFn },
    });
    expect(plugin({ ignoredModules: /h\.\d/ }).config.ignoredModules).toBe("h\\.\\d");
    expect(plugin({ paramInitFn }).warnings).toEqual([
      "paramInitFn is ignored by FSDP version 2: FSDP1 alone has it, remove it",
    ]);
  });

  test("a mixed precision's name stands for parameters and reductions", () => {
    const both = (dtype: "float16" | "bfloat16" | "float32") => ({ paramDtype: dtype, reduceDtype: dtype });
    expect(plugin({ mixedPrecisionPolicy: "bf16" }).mixedPrecisionPolicy).toEqual(both("bfloat16"));
    expect(plugin({ mixedPrecisionPolicy: "fp16" }).mixedPrecisionPolicy).toEqual(both("float16"));
    expect(plugin({ mixedPrecisionPolicy: "fp8" }).mixedPrecisionPolicy).toEqual(both("bfloat16"));
    expect(plugin({ mixedPrecisionPolicy: "no" }).mixedPrecisionPolicy).toBeUndefined();
    const own = { paramDtype: "bfloat16", outputDtype: "float32" } as const;
    expect(plugin({ mixedPrecisionPolicy: own }).mixedPrecisionPolicy).toEqual(own);
    expect(() => plugin({ mixedPrecisionPolicy: "fp12" as "fp16" })).toThrow(
      'cannot use mixedPrecisionPolicy: given "fp12", allowed are no, fp32, fp16, bf16, fp8 and a policy',
    );
    expect(() => plugin({ mixedPrecisionPolicy: { paramDtype: "int32" } })).toThrow(ConfigError);
    expect(() => plugin({ mixedPrecisionPolicy: { bufferDtype: "float32" } as object })).toThrow(
      'given "bufferDtype", allowed are "paramDtype", "reduceDtype", "outputDtype", "castForwardInputs"',
    );
  });

  test("the state dict type can change later, to one that the version has", () => {
    const made = plugin();
    made.setStateDictType("FULL_STATE_DICT");
    expect(made.stateDictType).toBe("FULL_STATE_DICT");
    expect(() => made.setStateDictType("LOCAL_STATE_DICT")).toThrow("FSDP version 2 has");
    expect(made.stateDictType).toBe("FULL_STATE_DICT");
    const first = plugin({ fsdpVersion: 1 });
    first.setStateDictType("LOCAL_STATE_DICT");
    expect(first.stateDictConfig).toEqual({ offloadToCpu: true, rank0Only: true });
  });

  test("warns once in a process", () => {
    const make = () => new FullyShardedDataParallelPlugin({ shardingStrategy: "HYBRID_SHARD_ZERO2" }, {});
    const first = quietly(make);
    expect(first.printed).toBe(`warning: ${first.value.warnings[0]}\n`);
    const second = quietly(make);
    expect(second.printed).toBe("");
    expect(second.value.warnings).toEqual(first.value.warnings);
  });
});

describe("in a launched rank", () => {
  const settings = packSettings({
    fsdp: {
      fsdpVersion: { value: "1", where: "--fsdp-version" },
      reshardAfterForward: { value: "SHARD_GRAD_OP", where: 'fsdp_reshard_after_forward in "run.yaml"' },
    },
    versionSettings: {},
    mixedPrecision: "bf16",
    gradientAccumulationSteps: 4,
    replicas: 2,
  });
  const inRank = <T>(rank: number, body: () => T) =>
    asRank({ rank, settings: structuredClone<unknown>(settings) } as Rank, async () => quietly(body));

  test("what the launcher was told holds, before the rank's environment and after the code", async () => {
    const env = { FSDP_VERSION: "2", FSDP_AUTO_WRAP_POLICY: "NO_WRAP" };
    const { value } = await inRank(0, () => new FullyShardedDataParallelPlugin({}, env));
    expect(value.config).toMatchObject({
      version: "fsdp1",
      strategy: "SHARD_GRAD_OP",
      replicas: 2,
      wrapPolicy: "TRANSFORMER_BASED_WRAP",
    });
    const own = await inRank(
      0,
      () => new FullyShardedDataParallelPlugin({ shardingStrategy: "NO_SHARD" }, env),
    );
    expect(own.value.config.strategy).toBe("NO_SHARD");
  });

  test("rank 0 alone warns, and not of what the launcher has warned of", async () => {
    const make = () =>
      new FullyShardedDataParallelPlugin({ fsdpVersion: 2, reshardAfterForward: true, useOrigParams: true });
    expect((await inRank(1, make)).printed).toBe("");
    expect((await inRank(0, make)).printed).toMatch(
      /^warning: useOrigParams is ignored by FSDP version 2.*\n$/,
    );
  });
});

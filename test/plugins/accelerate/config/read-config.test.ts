/** Config files as users have them, and as they should not be. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import type { CommandContext, CommandSpec } from "../../../../core/contracts/command.ts";
import { ConfigError, FsdpError } from "../../../../core/contracts/errors.ts";
import type { Registry } from "../../../../core/contracts/plugin.ts";
import { parseArguments } from "../../../../core/runtime/parse-options.ts";
import { PLACE_OPTIONS } from "../../../../core/runtime/place.ts";
import { createRegistry } from "../../../../core/runtime/registry.ts";
import { SHARDING } from "../../../../core/runtime/sharding-version.ts";
import { COMMAND_OPTIONS } from "../../../../plugins/accelerate/config/command-options.ts";
import { launchSettings } from "../../../../plugins/accelerate/config/launch-settings.ts";
import { readConfig } from "../../../../plugins/accelerate/config/read-config.ts";
import { TRAINING_OPTIONS } from "../../../../plugins/accelerate/config/training-options.ts";
import { fixture, inFolder } from "../../../support/command.ts";

const COMMAND: CommandSpec = {
  summary: "",
  options: { ...PLACE_OPTIONS, ...COMMAND_OPTIONS, ...TRAINING_OPTIONS },
  run: async () => 0,
};

function registryWithVersions(): Registry {
  const registry = createRegistry({ root: "file:///root.ts" });
  for (const name of ["fsdp1", "fsdp2"]) registry.register(SHARDING, name, { shard: () => {} });
  return registry;
}

/** Reads with these arguments; `yaml` is written to a file that they name. */
async function read(
  yaml: string | undefined,
  argv: readonly string[] = [],
  env: Record<string, string> = {},
) {
  return await inFolder(async (folder) => {
    const path = join(folder, "run.yaml");
    if (yaml !== undefined) writeFileSync(path, yaml);
    const given = yaml === undefined ? argv : ["--config_file", path, ...argv];
    const parsed = parseArguments("train", COMMAND, given);
    const quiet = { print: () => {}, printError: () => {} };
    const context: CommandContext = { registry: registryWithVersions(), ...parsed, ...quiet };
    return await readConfig(context, env);
  });
}

describe("config files of Accelerate", () => {
  test("run as they are: full-shard", async () => {
    const path = fixture("accelerate-configs/full-shard.yaml");
    const { place, sharding, mixedPrecision, notes, mainFunction } = await read(undefined, [
      "--config_file",
      path,
    ]);
    expect(place).toMatchObject({ worldSize: 2, backend: "cpu", collective: "threads" });
    expect(mixedPrecision).toBe("bf16");
    expect(mainFunction).toBe("main");
    expect(sharding).toMatchObject({
      version: "fsdp2",
      wrapClasses: ["GPT2Block"],
      reshardAfterForward: true,
      cpuRamEfficientLoading: true,
    });
    expect(notes.filter((note) => note.startsWith("note: "))).toEqual([
      'note: these keys of "full-shard.yaml" mean nothing here: compute_environment, debug, downcast_bf16, machine_rank, rdzv_backend, same_network',
    ]);
    expect(notes.filter((note) => note.startsWith("warning: "))).toHaveLength(4);
  });

  test("run as they are: an explicit version 1 with sizes", async () => {
    const path = fixture("accelerate-configs/grad-op-size.yaml");
    const { place, sharding } = await read(undefined, ["--config_file", path]);
    expect(place.worldSize).toBe(4);
    expect(sharding).toMatchObject({
      version: "fsdp1",
      strategy: "SHARD_GRAD_OP",
      backwardPrefetch: "BACKWARD_POST",
      wrapPolicy: "SIZE_BASED_WRAP",
      minNumParams: 2000,
      offload: true,
      activationCheckpointing: true,
    });
  });

  test("keys may stand without their prefix, and empty values say nothing", async () => {
    const { sharding } = await read(
      "fsdp_config:\n  version: 1\n  sharding_strategy: NO_SHARD\n  fsdp_min_num_params:\n",
    );
    expect(sharding).toMatchObject({ version: "fsdp1", strategy: "NO_SHARD", minNumParams: 100_000_000 });
  });

  test("a bare no is no, and a JSON file is a YAML file", async () => {
    expect((await read("mixed_precision: no")).mixedPrecision).toBe("no");
    expect((await read('{"mixed_precision": "fp16", "num_processes": 3}')).place.worldSize).toBe(3);
    expect((await read("num_processes: -1")).place.worldSize).toBe(1);
  });
});

describe("precedence", () => {
  const yaml = [
    "mixed_precision: fp16",
    "gradient_accumulation_steps: 8",
    "num_processes: 4",
    "backend: webgpu",
    "fsdp_config:",
    "  fsdp_min_num_params: 1",
    "  fsdp_auto_wrap_policy: NO_WRAP",
    "  fsdp_forward_prefetch: true",
  ].join("\n");
  const env = {
    FSDP_MIN_NUM_PARAMS: "2",
    FSDP_AUTO_WRAP_POLICY: "SIZE_BASED_WRAP",
    ACCELERATE_MIXED_PRECISION: "bf16",
    ACCELERATE_GRADIENT_ACCUMULATION_STEPS: "6",
  };

  test("is command line, environment, file, default", async () => {
    const argv = [
      "--fsdp_min_num_params",
      "3",
      "--mixed_precision",
      "no",
      "--nproc",
      "2",
      "--backend",
      "cpu",
    ];
    const all = await read(yaml, argv, env);
    expect(all.sharding).toMatchObject({
      minNumParams: 3,
      wrapPolicy: "SIZE_BASED_WRAP",
      forwardPrefetch: true,
      reshardAfterForward: true,
    });
    expect(all.mixedPrecision).toBe("no");
    expect(all.accumulation).toBe(6);
    expect(all.place).toMatchObject({ worldSize: 2, backend: "cpu" });
    const file = await read(yaml);
    expect(file.sharding.minNumParams).toBe(1);
    expect(file).toMatchObject({ mixedPrecision: "fp16", accumulation: 8 });
    expect(file.place).toMatchObject({ worldSize: 4, backend: "webgpu" });
  });
});

describe("parallelism", () => {
  test("replica groups come from the command line, the environment or the file", async () => {
    const yaml =
      "num_processes: 8\nparallelism_config:\n  parallelism_config_dp_replicate_size: 4\n  dp_shard_size: 2";
    expect((await read(yaml)).sharding.replicas).toBe(4);
    expect((await read("num_processes: 8", ["--dp-replicate-size", "2"])).sharding.replicas).toBe(2);
    const env = { PARALLELISM_CONFIG_DP_REPLICATE_SIZE: "2" };
    expect((await read("num_processes: 4", [], env)).sharding.replicas).toBe(2);
    expect(
      (await read("parallelism_config: {dp_replicate_size: 1, dp_shard_size: 1, tp_size: 1}")).sharding
        .replicas,
    ).toBe(1);
  });

  test("a script that nobody launched finds them in the environment", () => {
    expect(launchSettings({ PARALLELISM_CONFIG_DP_REPLICATE_SIZE: "2" }).replicas).toBe(2);
    expect(launchSettings({ ACCELERATE_MIXED_PRECISION: "BF16" })).toEqual({
      fsdp: {},
      versionSettings: {},
      mixedPrecision: "bf16",
      gradientAccumulationSteps: 1,
      replicas: undefined,
    });
  });

  test("sizes that do not fit the ranks, or divide anything but data, are refused", async () => {
    await expect(
      read("num_processes: 8\nparallelism_config: {dp_replicate_size: 3, dp_shard_size: 2}"),
    ).rejects.toThrow(
      "cannot use dp_replicate_size 3 and dp_shard_size 2: their product is not the 8 ranks of the run",
    );
    await expect(read("parallelism_config: {tp_size: 2}")).rejects.toThrow("cannot use tp_size: given 2");
  });
});

describe("a file that cannot be used", () => {
  const cases: readonly [string, string][] = [
    [
      "mixed_precison: bf16",
      'unknown key in "run.yaml": given "mixed_precison", closest is "mixed_precision"',
    ],
    ["fsdp_config:\n  fsdp_sharding_stategy: X", 'closest is "fsdp_sharding_strategy"'],
    [
      "fsdp_config:\n  fsdp_version: 3",
      'cannot use fsdp_version in "run.yaml": given 3, allowed are 1, 2 and what plugins bring',
    ],
    [
      "fsdp_config:\n  fsdp_offload_params: perhaps",
      'cannot use fsdp_offload_params in "run.yaml": given "perhaps", allowed are "true", "false"',
    ],
    [
      "mixed_precision: fp12",
      'cannot use mixed_precision in "run.yaml": given "fp12", allowed are "no", "fp16", "bf16"',
    ],
    ["num_processes: many", 'cannot use num_processes in "run.yaml": given "many"'],
    ["parallelism_config: {dp_replicat_size: 2}", 'closest is "dp_replicate_size"'],
    ["num_machines: 2", "allowed is 1 with --collective threads"],
    ["distributed_type: DEEPSPEED", 'cannot use distributed_type in "run.yaml": given "DEEPSPEED"'],
    ["gradient_accumulation_steps: 0", "given 0, allowed are integers from 1"],
    ["plugins: ./a.ts", 'cannot use plugins in "run.yaml": allowed is a list of paths'],
    ["plugins: [./none.ts]", "there is no such file"],
    ["fsdp_config: [1]", "fsdp_config is a list, allowed are keys with values"],
    ["- a", "it holds a list, allowed are keys with values"],
    ["", "it holds nothing"],
    ["a: [", "not valid YAML"],
    ["a: 1\na: 2", "not valid YAML"],
  ];
  for (const [yaml, says] of cases) {
    test(`is one clear line: ${JSON.stringify(yaml)}`, async () => {
      const error: unknown = await read(yaml).catch((thrown) => thrown);
      expect(error).toBeInstanceOf(FsdpError);
      expect((error as FsdpError).message).toContain(says);
      expect((error as FsdpError).message).not.toContain("\n");
    });
  }

  test("is one that is not there", async () => {
    await expect(read(undefined, ["--config_file", "none.yaml"])).rejects.toThrow(
      'cannot use --config_file: "none.yaml" cannot be read (ENOENT)',
    );
  });

  test("does not grow without bound", async () => {
    const levels = Array.from(
      { length: 12 },
      (_, i) => `b${i + 1}: &b${i + 1} [${Array(9).fill(`*b${i}`).join(",")}]`,
    );
    await expect(read(["b0: &b0 [1,2,3]", ...levels].join("\n"))).rejects.toThrow(ConfigError);
  });

  test("whatever it holds, gives a configuration or an error of the project", async () => {
    const key = fc.constantFrom(
      "fsdp_config",
      "mixed_precision",
      "num_processes",
      "plugins",
      "__proto__",
      "backend",
    );
    const file = fc.dictionary(
      key,
      fc.oneof(
        fc.anything(),
        fc.dictionary(fc.constantFrom("fsdp_version", "min_num_params"), fc.jsonValue()),
      ),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          file.map((value) => JSON.stringify(value) ?? ""),
          fc.string(),
        ),
        async (text) => {
          const error: unknown = await read(text).then(
            () => undefined,
            (thrown) => thrown,
          );
          if (error !== undefined) expect(error).toBeInstanceOf(FsdpError);
        },
      ),
      { numRuns: 150 },
    );
  });
});

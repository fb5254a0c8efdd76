/** Options change how a model is trained, never what it learns. */
import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fixture, inFolder, readLog, run } from "../../support/command.ts";

const TINY = [
  ...["--model", fixture("gpt2-tiny/model"), "--tokens", fixture("gpt2-tiny/tokens.safetensors")],
  ...["--steps", "2", "--clip", "1"],
];

/** Losses and gradient norms of two steps, and what was said beside. */
async function train(args: readonly string[], env: Record<string, string> = {}) {
  return await inFolder(async (folder) => {
    const log = join(folder, "log.jsonl");
    const { code, stdout, stderr } = await run(["train", ...TINY, "--log", log, ...args], "bun", env);
    expect({ args, code, stderr: stderr.replace(/^(note|warning): .*\n/gim, "") }).toEqual({
      args,
      code: 0,
      stderr: "",
    });
    const steps = await readLog(log);
    return { figures: steps.flatMap((step) => [step.loss!, step.grad_norm!]), stdout, stderr };
  });
}

function expectClose(actual: readonly number[], expected: readonly number[], tolerance: number): void {
  expect(actual).toHaveLength(expected.length);
  for (const [i, value] of actual.entries())
    expect(Math.abs(value / expected[i]! - 1)).toBeLessThan(tolerance);
}

const plain = train(["--world-size", "2"]);

describe("two steps of two ranks", () => {
  for (const options of [
    "--fsdp_reshard_after_forward false --fsdp_forward_prefetch",
    "--fsdp_cpu_ram_efficient_loading true --fsdp_forward_prefetch 2",
    "--fsdp_offload_params true --fsdp_activation_checkpointing true",
    "--fsdp_auto_wrap_policy size_based_wrap --fsdp_min_num_params 2000 --gradient_accumulation_steps 2",
    "--fsdp_auto_wrap_policy NO_WRAP --fsdp_ignored_modules .*\\.ln_f",
    "--dp-replicate-size 2",
    "--fsdp_version 1 --fsdp_sharding_strategy SHARD_GRAD_OP --fsdp_backward_prefetch NO_PREFETCH",
    "--fsdp_version fsdp1 --fsdp_sharding_strategy HYBRID_SHARD --fsdp_use_orig_params false",
  ]) {
    test(`learn the same with ${options}`, async () => {
      expectClose(
        (await train(["--world-size", "2", ...options.split(" ")])).figures,
        (await plain).figures,
        1e-5,
      );
    }, 30_000);
  }

  test("refuse what no rank could do, in one line", async () => {
    for (const [options, says] of [
      ["--fsdp_ignored_modules nothing", "no module's whole name fits"],
      [
        "--fsdp_auto_wrap_policy NO_WRAP --fsdp_activation_checkpointing true",
        "fsdp_activation_checkpointing",
      ],
      ["--dp-replicate-size 3", "a dp_replicate_size of 3"],
      ["--fsdp_version 1 --fsdp_forward_prefetch 3", "FSDP version 1 has"],
      ["--fsdp_version 1 --fsdp_reshard_after_forward true", "cannot use --fsdp-reshard-after-forward"],
      ["--fsdp_state_dict_type LOCAL_STATE_DICT", "cannot use --fsdp-state-dict-type"],
    ] as const) {
      const { code, stderr } = await run(["train", ...TINY, "--world-size", "2", ...options.split(" ")]);
      expect(stderr.trimEnd().split("\n")).toHaveLength(1);
      expect(stderr).toContain(says);
      expect(code).toBe(1);
    }
  }, 30_000);
});

describe("config files of Accelerate train as they are", () => {
  for (const [name, ranks, version] of [
    ["full-shard", 2, "FSDP2"],
    ["grad-op-size", 4, "FSDP1"],
    ["already-2", 2, "FSDP2"],
  ] as const) {
    test(name, async () => {
      const { figures, stdout, stderr } = await train([
        "--config_file",
        fixture(`accelerate-configs/${name}.yaml`),
      ]);
      expect(stdout).toContain(`${version} over ${ranks} ranks`);
      expect(stderr.match(/^note: /gm)).toHaveLength(1);
      // Mixed precision rounds.
      expectClose(figures, (await plain).figures, 0.01);
    }, 30_000);
  }

  test("and the environment goes before them, the command line before both", async () => {
    await inFolder(async (folder) => {
      const path = join(folder, "run.yaml");
      const text = readFileSync(fixture("accelerate-configs/grad-op-size.yaml"), "utf8");
      writeFileSync(path, text.replace("num_processes: 4", "num_processes: 2"));
      const env = { FSDP_VERSION: "2" };
      expect((await train(["--config_file", path], env)).stdout).toContain("FSDP2 over 2 ranks");
      const flags = ["--fsdp_version", "1", "--num_processes", "1"];
      expect((await train(["--config_file", path, ...flags], env)).stdout).toContain("FSDP1 over 1 ranks");
    });
  }, 30_000);
});

import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { askForConfig } from "../../../plugins/accelerate/questions.ts";
import { inFolder, RUNTIMES, run } from "../../support/command.ts";

const MOD = new URL("../../../mod.ts", import.meta.url).pathname;

/** The file that these answers make, and what was asked. Answers left over are a mistake. */
async function answer(...lines: readonly string[]) {
  const left = [...lines];
  const [asked, said]: [string[], string[]] = [[], []];
  const text = await askForConfig({
    ask: async (prompt) => {
      asked.push(prompt);
      return left.shift();
    },
    say: (line) => said.push(line),
  });
  expect(left).toEqual([]);
  return { config: parse(text), asked, said };
}

const enter = (count: number) => Array<string>(count).fill("");

describe("the questions", () => {
  test("answered with nothing give FSDP2 with what is proposed", async () => {
    const { config, asked, said } = await answer(...enter(10));
    expect(said).toEqual([]);
    expect(config).toEqual({
      distributed_type: "FSDP",
      mixed_precision: "no",
      num_machines: 1,
      num_processes: 1,
      fsdp_config: {
        fsdp_version: 2,
        fsdp_reshard_after_forward: true,
        fsdp_offload_params: false,
        fsdp_auto_wrap_policy: "TRANSFORMER_BASED_WRAP",
        fsdp_state_dict_type: "SHARDED_STATE_DICT",
        fsdp_cpu_ram_efficient_loading: false,
        fsdp_activation_checkpointing: false,
      },
    });
    expect(asked.at(-1)).toBe("Recompute activations in backward instead of keeping them? (yes, no) [no]: ");
  });

  test("follow from the answers: version 1, by size", async () => {
    const { config, asked } = await answer(
      ...["4", "bf16", "1", "2", "yes", "size_based_wrap", "2000", "3"],
      ...["1", "yes", "no", "no", "no", "yes"],
    );
    expect(config.num_processes).toBe(4);
    expect(config.mixed_precision).toBe("bf16");
    expect(config.fsdp_config).toEqual({
      fsdp_version: 1,
      fsdp_sharding_strategy: "SHARD_GRAD_OP",
      fsdp_offload_params: true,
      fsdp_auto_wrap_policy: "SIZE_BASED_WRAP",
      fsdp_min_num_params: 2000,
      fsdp_backward_prefetch: "NO_PREFETCH",
      fsdp_state_dict_type: "FULL_STATE_DICT",
      fsdp_forward_prefetch: true,
      fsdp_use_orig_params: false,
      fsdp_cpu_ram_efficient_loading: false,
      fsdp_sync_module_states: false,
      fsdp_activation_checkpointing: true,
    });
    expect(asked.some((prompt) => prompt.includes("HSDP"))).toBe(false);
  });

  test("ask for replica groups where there are ranks to divide", async () => {
    const { config } = await answer(
      "6",
      "",
      "",
      "no",
      "",
      "",
      "GPT2Block, LlamaDecoderLayer",
      "2",
      "",
      "",
      "4",
      "3",
    );
    expect(config.parallelism_config).toEqual({ dp_replicate_size: 3, dp_shard_size: 2 });
    expect(config.fsdp_config).toMatchObject({
      fsdp_reshard_after_forward: false,
      fsdp_transformer_layer_cls_to_wrap: ["GPT2Block", "LlamaDecoderLayer"],
      fsdp_state_dict_type: "FULL_STATE_DICT",
    });
  });

  test("are asked again after a wrong answer, which is explained", async () => {
    const { said, config } = await answer(
      "0",
      "two",
      "1",
      "fp12",
      "",
      "2",
      "perhaps",
      "",
      ...enter(3),
      "LOCAL_STATE_DICT",
      "9",
      ...enter(3),
    );
    expect(said).toEqual([
      "Not this: allowed are integers from 1 to 65536",
      "Not this: allowed are integers from 1 to 65536",
      'Not this: given "fp12", allowed are "no", "fp16", "bf16"',
      'Not this: given "perhaps", allowed are "true", "false", integers from 2',
      expect.stringContaining('given "LOCAL_STATE_DICT"'),
      expect.stringContaining('given "9"'),
    ]);
    expect(config.fsdp_config.fsdp_state_dict_type).toBe("SHARDED_STATE_DICT");
  });

  test("that nobody answers are an error", async () => {
    await expect(answer("2", "no")).rejects.toThrow(ConfigError);
  });
});

describe.each(Object.keys(RUNTIMES) as (keyof typeof RUNTIMES)[])(
  "the command config under %s",
  (runtime) => {
    const start = (args: readonly string[]) =>
      Bun.spawn([...RUNTIMES[runtime], MOD, "config", ...args], {
        stdin: "pipe",
        stdout: "pipe",
        stderr: "pipe",
      });

    test("writes what train takes, from answers that come all at once", async () => {
      await inFolder(async (folder) => {
        const path = join(folder, "run.yaml");
        const child = start(["--config_file", path]);
        child.stdin.write(`3\n${enter(10).join("\n")}\n`);
        await child.stdin.end();
        expect(await new Response(child.stderr).text()).toBe("");
        expect(await child.exited).toBe(0);
        expect(parse(readFileSync(path, "utf8")).num_processes).toBe(3);
        expect(readdirSync(folder)).toEqual(["run.yaml"]);
      });
    }, 30_000);

    test("leaves no file when the answers end", async () => {
      await inFolder(async (folder) => {
        const child = start(["--config_file", join(folder, "run.yaml")]);
        child.stdin.write("2\n");
        await child.stdin.end();
        expect(await new Response(child.stderr).text()).toStartWith(
          "error: cannot write a config file: the answers end",
        );
        expect(await child.exited).toBe(1);
        expect(readdirSync(folder)).toEqual([]);
      });
    }, 30_000);

    test("asks on a terminal, and leaves no file at Ctrl-C", async () => {
      await inFolder(async (folder) => {
        const decoder = new TextDecoder();
        const [asked, again] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
        let seen = "";
        const child = Bun.spawn(
          [...RUNTIMES[runtime], MOD, "config", "--config_file", join(folder, "run.yaml")],
          {
            terminal: {
              data: (_, bytes) => {
                seen += decoder.decode(bytes, { stream: true });
                if (seen.includes("How many ranks? [1]: ")) asked.resolve();
                if (seen.includes("Mixed precision (no, fp16, bf16)? [no]: ")) again.resolve();
              },
            },
          },
        );
        // A child that ends early must not be waited for.
        const ended = child.exited.then(() => expect(seen).toBe("a question"));
        await Promise.race([asked.promise, ended]);
        child.terminal!.write("none\n2\n");
        await Promise.race([again.promise, ended]);
        ended.catch(() => {});
        child.terminal!.write("\x03");
        expect(await child.exited).not.toBe(0);
        expect(child.signalCode ?? "SIGINT").toBe("SIGINT");
        expect(seen).toContain("Not this: allowed are integers from 1 to 65536");
        expect(readdirSync(folder)).toEqual([]);
      });
    }, 30_000);
  },
);

test("an existing file is replaced only when that is asked for", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "run.yaml");
    writeFileSync(path, "mine: 1\n");
    const { code, stderr } = await run(["config", "--config_file", path]);
    expect(code).toBe(1);
    expect(stderr).toContain("exists, allowed with --overwrite");
    expect(readFileSync(path, "utf8")).toBe("mine: 1\n");
  });
}, 30_000);

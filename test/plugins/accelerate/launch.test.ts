/** `launch SCRIPT`: what users of torchrun expect of it. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { fixture, inFolder, RUNTIMES, run, start } from "../../support/command.ts";

const script = (name: string) => fileURLToPath(new URL(`scripts/${name}.ts`, import.meta.url));
const lines = (text: string) => text.trimEnd().split("\n").sort();

describe.each(Object.keys(RUNTIMES) as (keyof typeof RUNTIMES)[])("launch under %s", (runtime) => {
  test("runs a script's top level as every rank, with its own arguments and the launcher's options", async () => {
    const { code, stdout, stderr } = await run(
      [
        "launch",
        "--nproc",
        "3",
        "--fsdp_reshard_after_forward",
        "false",
        script("top-level"),
        "--nproc",
        "9",
        "--help",
      ],
      runtime,
    );
    expect(stderr).toBe("");
    expect(code).toBe(0);
    const seen = lines(stdout).map((line) => JSON.parse(line));
    expect(seen).toEqual(
      [0, 1, 2].map((rank) => ({
        rank,
        worldSize: 3,
        sum: 6,
        argv: ["--nproc", "9", "--help"],
        backend: "cpu",
        version: "fsdp2",
        reshard: false,
      })),
    );
  }, 30_000);

  test("a rank that fails ends all, with code 1 and an error that names it and shows where", async () => {
    const { code, stdout, stderr } = await run(["launch", script("main"), "--nproc", "2", "fail"], runtime);
    expect(code).toBe(1);
    expect(stdout).toBe("");
    expect(stderr).toStartWith("ShapeError: rank 1: rows do not fit\n");
    expect(stderr).toContain("scripts/main.ts");
  }, 30_000);

  test("Ctrl-C asks a script that heeds it to stop, and ends any other, with code 130", async () => {
    for (const [how, says] of [
      ["heed", ["rank 0 stopped in order", "rank 1 stopped in order"]],
      ["ignore", []],
    ] as const) {
      const child = start(["launch", "--nproc", "2", script("main"), how], runtime);
      const rest: string[] = [];
      let asked = false;
      for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
        rest.push(chunk);
        if (asked || !chunk.includes("working")) continue;
        asked = true;
        child.kill("SIGINT");
      }
      expect(await child.exited).toBe(130);
      expect(lines(rest.join("")).filter((line) => line.startsWith("rank"))).toEqual([...says]);
    }
  }, 30_000);
});

describe("launch", () => {
  test("takes the number of ranks from wherever it stands, and calls main with the arguments", async () => {
    for (const argv of [
      ["--nproc", "2", script("main")],
      ["--world-size=2", script("main")],
      ["--num_processes", "2", "--use_fsdp", script("main")],
      [script("main"), "--nproc", "2"],
      [script("main"), "--nproc=2"],
      ["--collective", "local", "--nproc", "2", script("main")],
    ]) {
      const { code, stdout, stderr } = await run(["launch", ...argv]);
      expect({ code, stderr, stdout: lines(stdout) }).toEqual({
        code: 0,
        stderr: "",
        stdout: ["rank 0 done", "rank 1 done"],
      });
    }
  }, 30_000);

  test("takes a config file of Accelerate as it is, with the function that it names", async () => {
    const path = fixture("accelerate-configs/already-2.yaml");
    const { code, stdout, stderr } = await run(["launch", "--config_file", path, script("top-level"), "a"]);
    expect(code).toBe(0);
    expect(stderr).toStartWith('note: these keys of "already-2.yaml" mean nothing here: ');
    expect(lines(stdout).map((line) => JSON.parse(line))).toMatchObject([
      { rank: 0, worldSize: 2, reshard: true, argv: ["a"] },
      { rank: 1, worldSize: 2 },
    ]);
    await inFolder(async (folder) => {
      const named = join(folder, "run.yaml");
      writeFileSync(named, "main_training_function: train\nnum_processes: 2\n");
      expect(lines((await run(["launch", "--config_file", named, script("main")])).stdout)).toEqual([
        "rank 0 trains",
        "rank 1 trains",
      ]);
    });
  }, 30_000);

  test("a rank that leaves is a failure, whatever its code", async () => {
    const { code, stderr } = await run(["launch", "--nproc", "2", script("main"), "exit"]);
    expect(code).toBe(1);
    expect(stderr).toContain("rank 1");
  }, 30_000);

  test("what is wrong before a rank starts is one clear line", async () => {
    await inFolder(async (folder) => {
      const path = join(folder, "empty.ts");
      writeFileSync(path, "");
      for (const [argv, says] of [
        [[], 'missing argument for "launch": given 0, allowed are "SCRIPT [ARGS...]"'],
        [["none.ts"], 'cannot launch "none.ts": there is no such file'],
        [["--nproc", "0", path], 'invalid value for option "--world-size" of "launch"'],
        [[path, "--nproc", "some"], 'invalid value for option "--nproc" of "launch": given "some"'],
        [["--backend", "tpu", path], 'unknown backend: given "tpu"'],
        [["--fsdp-version", "7", path], "cannot use --fsdp-version: given 7, allowed are 1, 2"],
        [["--fsdp_offload_param", path], 'closest is "--fsdp-offload-params"'],
      ] as const) {
        const { code, stderr } = await run(["launch", ...argv]);
        expect(stderr.trimEnd().split("\n")).toHaveLength(1);
        expect(stderr).toContain(says);
        expect(code).toBe(1);
      }
    });
  }, 30_000);

  test("a top level cannot be run by several ranks that share it", async () => {
    const { code, stderr } = await run([
      "launch",
      "--nproc",
      "2",
      "--collective",
      "local",
      script("top-level"),
    ]);
    expect(code).toBe(1);
    expect(stderr).toContain('export a function "main"');
  }, 30_000);
});

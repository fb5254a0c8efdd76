/** What an accelerator's ranks tell each other, who does what, and what is refused. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { launch } from "../../../../mod.ts";
import { packSettings } from "../../../../plugins/accelerate/config/launch-settings.ts";
import { inFolder } from "../../../support/command.ts";

const PROGRAMS = new URL("process-programs.ts", import.meta.url).href;

async function ranks(worldSize: number, program: string, args?: unknown): Promise<readonly unknown[]> {
  return await launch(PROGRAMS, { worldSize, collective: "local", export: program, args });
}

test("gather joins in rank order, reduce adds, broadcast sends, of any nesting", async () => {
  const results = await ranks(3, "exchanges");
  for (const [rank, result] of results.entries()) {
    expect(result).toEqual({
      rows: ["float32", [6, 2], [0, 0, -0, 1, 1, 10, -1, 1, 2, 20, -2, 1]],
      ids: ["int32", [3], [0, 1, 2]],
      scalar: ["float32", [3], [0.5, 1.5, 2.5]],
      sum: ["float32", [2, 2], [3, 30, -3, 3]],
      mean: ["float32", [2, 2], [2, 20, -2, 2]],
      unchanged: [rank, 10 * rank, -rank, 1],
      numbers: { a: 3, b: [3] },
      from: [1, 2],
      sent: ["float32", [2, 2], [2, 20, -2, 1]],
      main: rank === 0 ? 2 : "not here",
      local: rank === 0 ? "here" : "not here",
      place: [rank, rank, 3],
      is: [rank === 0, rank === 0, rank === 2],
      order: ["in turn"],
      refused: [
        "gather() failed: given string, allowed are tensors, and arrays and plain objects of them",
        "reduce() failed: given null, allowed are tensors, numbers, and arrays and plain objects of them",
        "gather() failed: given number, allowed are tensors, and arrays and plain objects of them",
      ],
    });
  }
});

test("the main process goes first, and lets the others go on when it fails", async () => {
  for (const how of ["main", "fails"]) {
    const said: unknown[] = [];
    const results = await launch(PROGRAMS, {
      worldSize: 3,
      collective: "local",
      export: "turns",
      args: how,
      onMessage: (_, message) => said.push(message),
    });
    expect(said.slice(0, 2)).toEqual(["rank 0 begins", "rank 0 ends"]);
    expect(said.length).toBe(6);
    expect(results).toEqual([how === "main" ? 0 : "no", 1, 2]);
  }
});

test.each([1, 2, 3])("metrics over %d ranks see every sample once, in order", async (worldSize) => {
  for (const count of [1, 11, 12, 25]) {
    const all = Array.from({ length: count }, (_, i) => i);
    for (const result of await ranks(worldSize, "metrics", count))
      expect(result).toEqual([all, all] as never);
  }
});

test("figures go to trackers on the main process, and a resumed run goes on in its file", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "logs", "run.jsonl");
    for (let time = 0; time < 2; time++) {
      const [main, other] = await ranks(2, "logs", { path, projectDir: folder });
      expect(main).toEqual([[{ loss: 0.5, note: "first" }, 1], [{ loss: Number.NaN }, null], "finished"]);
      expect(other).toEqual([]);
      const lines = ['{"step":1,"loss":0.5,"note":"first"}', '{"loss":null}', '{"step":2,"loss":0.25}'];
      expect(readFileSync(path, "utf8")).toBe(`${lines.join("\n")}\n`);
    }
  });
});

test("what the launcher was told holds where code says nothing", async () => {
  const settings = packSettings({
    fsdp: { fsdpVersion: { value: 1, where: "--fsdp-version" } },
    versionSettings: {},
    mixedPrecision: "bf16",
    gradientAccumulationSteps: 3,
  });
  for (const seen of await launch(PROGRAMS, {
    worldSize: 2,
    collective: "local",
    export: "told",
    settings,
  })) {
    expect(seen).toEqual([
      ["bf16", 3, "fsdp1"],
      ["no", 1, "fsdp1"],
    ]);
  }
});

describe("misuse", () => {
  test("is refused by name, and what is harmless does what it says", async () => {
    const [first, second] = (await ranks(2, "misuse")) as Record<string, string>[];
    expect<unknown>({ ...second, rank: 0, dict: "4" }).toEqual(first!);
    expect(second!.dict).toBe("0");
    const { backend, rank: _, ...said } = first!;
    expect(backend).toStartWith('PluginError: unknown backend: given "tpu"');
    expect(said).toEqual({
      precision: 'ConfigError: cannot use mixedPrecision: given "fp64", allowed are "no", "fp16", "bf16"',
      accumulation: "ConfigError: cannot use gradientAccumulationSteps: given 0, allowed are integers from 1",
      limit:
        "ConfigError: cannot create an Accelerator: given a totalLimit of 0, allowed are integers from 1",
      seed: "ConfigError: cannot create an Accelerator: given a seed of -1, allowed are integers from 0",
      plugin:
        "ConfigError: cannot create an Accelerator: given an fsdpPlugin of another kind, allowed is a FullyShardedDataParallelPlugin",
      "something else":
        "ConfigError: cannot prepare argument 1: given string, allowed are a module, a language model, an optimizer, an LRScheduler and a DataLoader",
      "optimizer alone":
        "ConfigError: cannot prepare AdamW: its parameter of shape [7, 4] is in no prepared model, prepare that model before or in the same call",
      split:
        "ConfigError: cannot prepare a DataLoader: given splitBatches and a batchSize of 3 for 2 ranks, allowed are multiples of that",
      unprepared:
        "ConfigError: accumulate() failed: given Net, which is not prepared, allowed are models from prepare()",
      "prepared twice": "true",
      unwrapped: "true",
      nested: "StateError: accumulate() failed: it is under way, call it when that has ended",
      "after it": "nothing",
      "loss of two":
        "ShapeError: backward() failed: a tensor of shape [2, 1] has more than one element, pass its gradient",
      "after that": "nothing",
      clip: "ConfigError: clipGradNorm() failed: maxNorm -1, allowed are numbers > 0",
      "clip value": "ConfigError: clipGradValue() failed: given 0, allowed are numbers > 0",
      register:
        "ConfigError: cannot register argument 0 for checkpointing: given object, allowed are objects with values() and loadValues(values)",
      dict: "4",
      everywhere: "4",
      freed: "0",
      "freed model":
        "ConfigError: accumulate() failed: given Net, which is not prepared, allowed are models from prepare()",
    });
  });
});

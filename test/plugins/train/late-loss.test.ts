import { expect, test } from "bun:test";
import { join } from "node:path";
import { inFolder, readLog, run } from "../../support/command.ts";
import { GPT2_TINY_OPTIONS } from "../../support/gpt2-tiny.ts";

test("losses that are read a step late are the same, all of them and in order, with checkpoints between", async () => {
  await inFolder(async (folder) => {
    const logs: unknown[] = [];
    for (const late of [[], ["--late-loss"]]) {
      const name = `run${late.length}`;
      const save = ["--save", join(folder, name), "--save-every", "3", "--steps", "8"];
      const log = join(folder, `${name}.jsonl`);
      const { code, stderr } = await run([
        "train",
        ...GPT2_TINY_OPTIONS,
        "--world-size",
        "2",
        ...save,
        "--log",
        log,
        ...late,
      ]);
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      logs.push((await readLog(log)).map(({ step, loss, grad_norm }) => ({ step, loss, grad_norm })));
    }
    expect(logs[1]).toEqual(logs[0]);
    expect((logs[0] as unknown[]).length).toBe(8);
  });
}, 60_000);

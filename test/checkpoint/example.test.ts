import { expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { fixture, inFolder, RUNTIMES } from "../support/command.ts";

test.each(["bun", "deno"] as const)(
  "the example saves on two ranks and goes on from there on three, under %s",
  async (runtime) => {
    await inFolder(async (folder) => {
      const script = fixture("../examples/checkpoint-mlp.ts");
      const child = Bun.spawn([...RUNTIMES[runtime], script, join(folder, "run")], { stderr: "pipe" });
      const [printed, problems] = await Promise.all([
        new Response(child.stdout).text(),
        new Response(child.stderr).text(),
        child.exited,
      ]);
      expect(problems).toBe("");
      expect(printed).toMatch(/^step 20: loss 0\.[0-9]{3}\n$/);
      expect((await readdir(join(folder, "run"))).sort()).toEqual(["step-00000015", "step-00000020"]);
    });
  },
  60_000,
);

/** The README's script is the one that is run here. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { RUNTIMES } from "../../support/command.ts";

const README = readFileSync(new URL("../../../plugins/float8/README.md", import.meta.url), "utf8");
const script = fileURLToPath(new URL("train-float8.ts", import.meta.url));

describe("the script of float8's README", () => {
  test("is the one that is run here", () => {
    const shown = readFileSync(script, "utf8").replace("../../../mod.ts", "fsdp").trimEnd();
    expect(README).toContain(shown);
  });

  for (const [runtime, command] of Object.entries(RUNTIMES)) {
    test(`learns on two ranks under ${runtime}`, async () => {
      const child = Bun.spawn([...command, script], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
      const [stdout, stderr] = await Promise.all([
        new Response(child.stdout).text(),
        new Response(child.stderr).text(),
      ]);
      expect(stderr).toBe("");
      expect(await child.exited).toBe(0);
      const losses = [...stdout.matchAll(/loss ([\d.]+)/g)].map((match) => Number(match[1]));
      expect(losses.length).toBe(4);
      expect(losses[3]!).toBeLessThan(losses[0]! / 3);
    }, 30_000);
  }
});

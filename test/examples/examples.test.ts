/** The scripts of the documents run, and the documents show the scripts. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { RUNTIMES } from "../support/command.ts";

const README = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
const script = fileURLToPath(new URL("train-mlp.ts", import.meta.url));

describe("the README's script", () => {
  test("is the one that is run here", () => {
    const shown = readFileSync(script, "utf8").replace("../../mod.ts", "fsdp").trimEnd();
    expect(README).toContain(shown);
  });

  for (const [runtime, command] of Object.entries(RUNTIMES)) {
    test(`learns on two ranks under ${runtime} and prints what the README shows`, async () => {
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
      // Another BLAS rounds otherwise: the documents' figures hold to within 2%.
      const shown = [...README.matchAll(/^ +step \d+: loss ([\d.]+)$/gm)].map((match) => Number(match[1]));
      expect(shown.length).toBe(4);
      for (const [i, loss] of losses.entries()) expect(Math.abs(loss / shown[i]! - 1)).toBeLessThan(0.02);
    }, 30_000);
  }
});

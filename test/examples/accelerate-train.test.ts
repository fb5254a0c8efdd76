/** The script of plugins/accelerate/README.md: as it is, launched over ranks, under either runtime and version. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Finished, inFolder, RUNTIMES, run } from "../support/command.ts";

const SCRIPT = fileURLToPath(new URL("accelerate-train.ts", import.meta.url));
const README = readFileSync(new URL("../../plugins/accelerate/README.md", import.meta.url), "utf8");

async function runAlone(runtime: keyof typeof RUNTIMES, args: readonly string[]): Promise<Finished> {
  const child = Bun.spawn([...RUNTIMES[runtime], SCRIPT, ...args], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  return { code: await child.exited, stdout, stderr };
}

function errorsOf({ code, stdout, stderr }: Finished): number[] {
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const lines = stdout.trimEnd().split("\n");
  return lines.map((line) => {
    const [, rows, error] = /^epoch \d+: (\d+) samples, error ([\d.]+)$/.exec(line) ?? [];
    expect(rows).toBe("200");
    return Number(error);
  });
}

test("the README shows the script", () => {
  expect(README).toContain(readFileSync(SCRIPT, "utf8").replace("../../mod.ts", "fsdp").trimEnd());
});

describe.each(Object.keys(RUNTIMES) as (keyof typeof RUNTIMES)[])("under %s", (runtime) => {
  test("it learns alone, keeps two checkpoints, and goes on from the last", async () => {
    await inFolder(async (folder) => {
      const errors = errorsOf(await runAlone(runtime, [folder]));
      expect(errors.length).toBe(10);
      expect(errors.at(-1)!).toBeLessThan(errors[0]! / 50);
      expect(readdirSync(join(folder, "checkpoints")).sort()).toEqual(["checkpoint_3", "checkpoint_4"]);
      const again = await runAlone(runtime, [folder, "resume"]);
      expect(again).toEqual({ code: 0, stdout: "", stderr: "" });
    });
  }, 30_000);
});

test("launched over three ranks it learns the same under both versions and both runtimes", async () => {
  await inFolder(async (folder) => {
    const launch = (runtime: keyof typeof RUNTIMES, version: string) => {
      const place = join(folder, runtime + version);
      return run(["launch", "--nproc", "3", "--fsdp-version", version, SCRIPT, place], runtime);
    };
    const [bun, deno, fsdp1] = [
      errorsOf(await launch("bun", "2")),
      errorsOf(await launch("deno", "2")),
      errorsOf(await launch("bun", "1")),
    ];
    expect(bun!.length).toBe(10);
    expect(bun!.at(-1)!).toBeLessThan(bun![0]! / 20);
    expect(deno).toEqual(bun!);
    for (const [i, error] of fsdp1!.entries()) expect(error).toBeCloseTo(bun![i]!, 2);
  });
}, 60_000);

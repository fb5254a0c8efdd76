import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fixture, inFolder, RUNTIMES, run, start } from "../../support/command.ts";

/** Reads a stream until `wanted` appears. */
async function readUntil(stream: ReadableStream<Uint8Array>, wanted: string): Promise<string> {
  let seen = "";
  const decoder = new TextDecoder();
  for await (const chunk of stream) {
    seen += decoder.decode(chunk, { stream: true });
    if (seen.includes(wanted)) return seen;
  }
  throw new Error(`the stream ended without "${wanted}": ${seen}`);
}

const endless = [
  "--config-model",
  "gpt2-bytes",
  "--data",
  fixture("gpt2-tiny"),
  fixture("../support"),
  "--steps",
  "100000",
];

describe.each(Object.keys(RUNTIMES) as (keyof typeof RUNTIMES)[])("Ctrl-C under %s", (runtime) => {
  test("ends the run after its step with code 130, and the last complete checkpoint loads", async () => {
    await inFolder(async (folder) => {
      const save = join(folder, "run");
      const args = [
        ...endless,
        "--seq-len",
        "16",
        "--batch-size",
        "1",
        "--world-size",
        "2",
        "--save",
        save,
        "--save-every",
        "3",
      ];
      const child = start(["train", ...args], runtime);
      await readUntil(child.stdout, "saved step-00000006");
      child.kill("SIGINT");
      expect(await child.exited).toBe(130);
      const saved = readdirSync(save).sort();
      expect(saved).toContain("step-00000006");
      expect(saved.filter((name) => name.startsWith("."))).toEqual([]);
      const last = Number(saved.at(-1)!.slice("step-".length));
      const more = ["--save", save, "--resume", "latest", "--steps", String(last + 1)];
      const resumed = await run(["train", ...args.slice(0, -6), ...args.slice(-6, -4), ...more], runtime);
      expect(resumed.stderr).toBe("");
      expect(resumed.stdout).toContain(`resumed after step ${last}`);
      expect(resumed.code).toBe(0);
    });
  }, 60_000);
});

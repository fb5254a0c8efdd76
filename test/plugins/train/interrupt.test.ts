import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fixture, inFolder, RUNTIMES, run, start } from "../../support/command.ts";

/** Resolves once `wanted` was printed. Goes on reading, because a closed pipe would end the command too. */
function printed(stream: ReadableStream<Uint8Array>, wanted: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const read = async () => {
      let seen = "";
      const decoder = new TextDecoder();
      for await (const chunk of stream) {
        seen += decoder.decode(chunk, { stream: true });
        if (seen.includes(wanted)) resolve();
      }
      reject(new Error(`the stream ended without "${wanted}": ${seen}`));
    };
    void read();
  });
}

const run2 = [
  ...[
    "--config-model",
    "gpt2-bytes",
    "--data",
    fixture("../support"),
    "--seq-len",
    "16",
    "--batch-size",
    "1",
  ],
  ...["--world-size", "2"],
];

describe.each(Object.keys(RUNTIMES) as (keyof typeof RUNTIMES)[])("Ctrl-C under %s", (runtime) => {
  test("ends the run after its step with code 130, and the last complete checkpoint loads", async () => {
    await inFolder(async (folder) => {
      const save = join(folder, "run");
      const started = start(
        ["train", ...run2, "--steps", "100000", "--save", save, "--save-every", "3"],
        runtime,
      );
      await printed(started.stdout, "saved step-00000006");
      started.kill("SIGINT");
      expect(await started.exited).toBe(130);
      const saved = readdirSync(save).sort();
      expect(saved).toContain("step-00000006");
      expect(saved.filter((name) => name.startsWith("."))).toEqual([]);
      const last = Number(saved.at(-1)!.slice("step-".length));
      const more = ["--save", save, "--resume", "latest", "--steps", String(last + 1)];
      const resumed = await run(["train", ...run2, ...more], runtime);
      expect(resumed.stderr).toBe("");
      expect(resumed.stdout).toContain(`resumed after step ${last}`);
      expect(resumed.code).toBe(0);
    });
  }, 60_000);
});

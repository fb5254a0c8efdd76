import { describe, expect, test } from "bun:test";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fixture, inFolder, RUNTIMES, readLog, run } from "../../support/command.ts";
import { GPT2_TINY_OPTIONS } from "../../support/gpt2-tiny.ts";

const STEPS = ["--steps", "6", "--save-every", "2", "--world-size", "2"];

describe("checkpoints while a run trains", () => {
  test("in the background hold the same bytes as at once, and only the newest are kept", async () => {
    await inFolder(async (folder) => {
      const train = async (name: string, ...args: string[]) => {
        const options = [...GPT2_TINY_OPTIONS, ...STEPS, "--save", join(folder, name), ...args];
        const { code, stderr } = await run(["train", ...options]);
        expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      };
      await train("at-once");
      await train("background", "--async-save", "--keep-last", "2");
      expect((await readdir(join(folder, "at-once"))).length).toBe(3);
      const kept = ["step-00000004", "step-00000006"];
      expect((await readdir(join(folder, "background"))).sort()).toEqual(kept);
      for (const name of kept) {
        for (const file of ["rank-00000.safetensors", "rank-00001.safetensors"]) {
          const [one, other] = await Promise.all(
            ["at-once", "background"].map((run) => readFile(join(folder, run, name, file))),
          );
          expect(one!.equals(other!)).toBe(true);
        }
      }
    });
  }, 60_000);

  test.each(["", "--async-save"])(
    "that the system refuses are reported, training goes on, and the run ends with the error (%s)",
    async (option) => {
      await inFolder(async (folder) => {
        const log = join(folder, "log.jsonl");
        const options = [...GPT2_TINY_OPTIONS, ...STEPS, "--log", log, "--save", join(folder, "run"), option];
        const command = [...RUNTIMES.bun, fixture("../../mod.ts"), "train", ...options].filter(Boolean);
        // Files may grow to 64 KiB; a rank's has more.
        const limited = ["sh", "-c", "trap '' XFSZ; ulimit -f 128; exec \"$@\"", "sh", ...command];
        const child = Bun.spawn(limited, { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
        const [, problems, code] = await Promise.all([
          new Response(child.stdout).text(),
          new Response(child.stderr).text(),
          child.exited,
        ]);
        expect(code).toBe(1);
        expect(problems).toMatch(/save of step 6: .*write of rank-0000[01]\.safetensors: EFBIG/);
        expect((await readLog(log)).length).toBe(6);
        expect(await readdir(join(folder, "run"))).toEqual([]);
      });
    },
    60_000,
  );
});

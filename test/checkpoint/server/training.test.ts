import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { run as command, inFolder, readLog } from "../../support/command.ts";
import { GPT2_TINY_OPTIONS } from "../../support/gpt2-tiny.ts";
import { startService } from "./service.ts";

async function train(...args: string[]): Promise<void> {
  const { code, stderr } = await command(["train", ...GPT2_TINY_OPTIONS, ...args]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
}

const losses = async (path: string) => (await readLog(path)).map((line) => line.loss!);

describe("training over HTTP", () => {
  test("four ranks save to the service, and two go on from it bitwise as from a directory", async () => {
    const service = await startService();
    const run = `${service.url}/runs/tiny`;
    await inFolder(async (folder) => {
      const at = (name: string) => join(folder, name);
      await train("--world-size", "4", "--steps", "6", "--save", run, "--save-every", "3");
      // What the service keeps is a directory like any other.
      for (const [from, log] of [
        [`${run}/step-00000003`, "http.jsonl"],
        [join(service.directory, "tiny", "step-00000003"), "local.jsonl"],
      ] as const) {
        await train("--world-size", "2", "--steps", "8", "--resume", from, "--log", at(log));
      }
      const there = await losses(at("http.jsonl"));
      expect(there).toEqual(await losses(at("local.jsonl")));
      expect(there.length).toBe(5);
      // The service's model is the one that a merge of the directory gives.
      const merged = at("merged.safetensors");
      const merge = await command(["merge-weights", join(service.directory, "tiny"), merged]);
      expect([merge.code, merge.stderr]).toEqual([0, ""]);
      const exported = await fetch(
        `${service.url}/v1/runs/tiny/checkpoints/step-00000006/export.safetensors`,
      );
      expect(Buffer.compare(await exported.bytes(), await Bun.file(merged).bytes())).toBe(0);
    });
    expect(service.errors).toEqual([]);
    await service.close();
  }, 120_000);

  test("goes on when a save is refused, and saves again when there is room", async () => {
    let saves = 0;
    // Asked once when a save begins and once for each file: the first save meets a full disk.
    const service = await startService({ freeBytes: async () => (saves++ === 0 ? 0 : 1e12) });
    await inFolder(async (folder) => {
      const log = join(folder, "log.jsonl");
      const run = `${service.url}/runs/tiny`;
      const args = ["--world-size", "2", "--steps", "4", "--save", run, "--save-every", "2", "--log", log];
      const { code, stdout, stderr } = await command(["train", ...GPT2_TINY_OPTIONS, ...args]);
      expect({ code, said: `${stdout}${stderr}` }).toEqual({
        code: 0,
        said: expect.stringContaining("status 507"),
      });
      expect((await losses(log)).length).toBe(4);
      const list = await fetch(`${service.url}/v1/runs/tiny/checkpoints?names=only`);
      expect(await list.json()).toEqual({ checkpoints: [{ name: "step-00000004" }] });
    });
    expect(service.errors).toEqual([]);
    await service.close();
  }, 60_000);
});

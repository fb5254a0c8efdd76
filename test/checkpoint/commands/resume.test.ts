import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { safetensorsFormat } from "../../../checkpoint/formats/safetensors/format.ts";
import { bytesOf, newHostArray } from "../../../core/contracts/dtype.ts";
import { fixture, inFolder, readLog, run } from "../../support/command.ts";
import { GPT2_TINY_OPTIONS } from "../../support/gpt2-tiny.ts";
import { command } from "./run.ts";

async function train(folder: string, ...args: string[]): Promise<readonly number[]> {
  const log = join(folder, `${crypto.randomUUID()}.jsonl`);
  const { code, stderr } = await run(["train", ...GPT2_TINY_OPTIONS, "--log", log, ...args]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return (await readLog(log)).map(({ loss }) => loss!);
}

/** The fixture's tokens, and its first two rows once more. */
async function tokensWithTwoMore(path: string): Promise<void> {
  const reader = await safetensorsFormat.open(fixture("gpt2-tiny/tokens.safetensors"));
  const [steps, ...row] = reader.info("tokens").shape as [number, number, number];
  const tokens = bytesOf(await reader.read("tokens"));
  await reader.close();
  const more = newHostArray("int64", (steps + 2) * row[0] * row[1]);
  bytesOf(more).set(tokens);
  bytesOf(more).set(tokens.subarray(0, (2 * tokens.length) / steps), tokens.length);
  const tensor = {
    name: "tokens",
    dtype: "int64",
    shape: [steps + 2, ...row],
    read: async () => more,
  } as const;
  await safetensorsFormat.write(path, [tensor], {});
}

describe("training goes on", () => {
  test("bitwise from its own checkpoint after a way through PyTorch's format", async () => {
    await inFolder(async (folder) => {
      const [own, through] = [join(folder, "run"), join(folder, "through")];
      const world = ["--world-size", "2"];
      await train(folder, ...world, "--steps", "3", "--save", own);
      expect((await command("convert", own, join(folder, "dcp"), "--to", "dcp")).code).toBe(0);
      expect((await command("convert", join(folder, "dcp"), through, "--to", "native")).code).toBe(0);
      const exports = [join(folder, "a.safetensors"), join(folder, "b.safetensors")] as const;
      const direct = await train(folder, ...world, "--steps", "5", "--resume", own, "--export", exports[0]);
      const converted = await train(
        folder,
        ...world,
        "--steps",
        "5",
        "--resume",
        through,
        "--export",
        exports[1],
      );
      expect(converted).toEqual(direct);
      const [a, b] = await Promise.all(
        exports.map(async (path) => Buffer.from(await Bun.file(path).arrayBuffer())),
      );
      expect(b!.equals(a!)).toBe(true);
    });
  }, 60_000);

  test("from PyTorch's checkpoint, model and optimizer, where PyTorch ended", async () => {
    await inFolder(async (folder) => {
      const tokens = join(folder, "tokens.safetensors");
      await tokensWithTwoMore(tokens);
      const run = join(folder, "run");
      expect(
        (await command("convert", fixture("gpt2-tiny/dcp"), run, "--to", "native", "--step", "20")).code,
      ).toBe(0);
      // Two steps: the second loss shows what the optimizer made of its state in the first.
      const options = ["--tokens", tokens, "--steps", "22"];
      const whole = await train(folder, ...options);
      const resumed = await train(folder, ...options, "--world-size", "4", "--resume", run);
      expect(resumed).toHaveLength(2);
      for (const [i, loss] of resumed.entries())
        expect(Math.abs(loss / whole[20 + i]! - 1)).toBeLessThan(2e-4);
    });
  }, 60_000);
});

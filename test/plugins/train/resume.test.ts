import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { run as command, fixture, inFolder, readLog } from "../../support/command.ts";
import { GPT2_TINY_OPTIONS } from "../../support/gpt2-tiny.ts";

async function train(...args: string[]): Promise<void> {
  const { code, stderr } = await command(["train", ...GPT2_TINY_OPTIONS, ...args]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
}

const losses = async (path: string) => (await readLog(path)).map((line) => line.loss!);

describe("a run that goes on from its checkpoint", () => {
  test("is bitwise the uninterrupted run at the same world size, weights too", async () => {
    await inFolder(async (folder) => {
      const at = (name: string) => join(folder, name);
      const world = ["--world-size", "2"];
      await train(...world, "--log", at("straight.jsonl"), "--export", at("straight.safetensors"));
      await train(...world, "--steps", "10", "--save", at("run"), "--log", at("first.jsonl"));
      const rest = ["--save", at("run"), "--resume", "latest", "--log", at("rest.jsonl")];
      await train(...world, ...rest, "--export", at("resumed.safetensors"));
      const resumed = [...(await losses(at("first.jsonl"))), ...(await losses(at("rest.jsonl")))];
      expect(resumed).toEqual(await losses(at("straight.jsonl")));
      const bytes = async (name: string) => Buffer.from(await Bun.file(at(name)).arrayBuffer());
      expect((await bytes("resumed.safetensors")).equals(await bytes("straight.safetensors"))).toBe(true);
    });
  }, 60_000);

  test("draws the same dropout as the uninterrupted run, and draws it at all", async () => {
    await inFolder(async (folder) => {
      const at = (name: string) => join(folder, name);
      const small = { vocab_size: 256, n_positions: 32, n_embd: 16, n_layer: 1, n_head: 2 };
      const run = async (pdrop: number, ...args: string[]) => {
        const config = { ...small, resid_pdrop: pdrop, embd_pdrop: pdrop, attn_pdrop: pdrop };
        const model = [
          "--config-model",
          JSON.stringify(config),
          "--tokens",
          fixture("gpt2-tiny/tokens.safetensors"),
        ];
        const { code, stderr } = await command(["train", ...model, "--world-size", "2", ...args]);
        expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      };
      await run(0.2, "--steps", "6", "--log", at("straight.jsonl"));
      await run(0, "--steps", "6", "--log", at("without.jsonl"));
      await run(0.2, "--steps", "3", "--save", at("run"), "--log", at("first.jsonl"));
      await run(0.2, "--steps", "6", "--save", at("run"), "--resume", "latest", "--log", at("rest.jsonl"));
      const straight = await losses(at("straight.jsonl"));
      expect([...(await losses(at("first.jsonl"))), ...(await losses(at("rest.jsonl")))]).toEqual(straight);
      expect((await losses(at("without.jsonl")))[0]).not.toBe(straight[0]!);
    });
  }, 60_000);

  for (const [from, to] of [
    [2, 4],
    [4, 1],
    [1, 2],
  ]) {
    test(`gives the same losses within 1e-5 when ${from} ranks saved it and ${to} load it`, async () => {
      await inFolder(async (folder) => {
        const at = (name: string) => join(folder, name);
        await train("--world-size", String(to), "--log", at("straight.jsonl"));
        await train("--world-size", String(from), "--steps", "10", "--save", at("run"));
        const checkpoint = at("run/step-00000010");
        await train("--world-size", String(to), "--resume", checkpoint, "--log", at("rest.jsonl"));
        const expected = (await losses(at("straight.jsonl"))).slice(10);
        const resumed = await losses(at("rest.jsonl"));
        expect(resumed.length).toBe(10);
        for (const [i, loss] of resumed.entries()) {
          expect(Math.abs(loss - expected[i]!) / expected[i]!).toBeLessThan(1e-5);
        }
      });
    }, 60_000);
  }
});

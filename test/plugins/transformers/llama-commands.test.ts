/** Llama on the command line: from scratch, from a checkpoint at another world size, from a Hugging Face directory. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { testOnGpu } from "../../backends/webgpu/gpu.ts";
import { fixture, inFolder, run } from "../../support/command.ts";
import { tinyModel } from "../../support/tiny-model.ts";

// Every command is a process of its own.
setDefaultTimeout(60_000);

/** The new tokens of a greedy `generate`. */
async function generated(...args: readonly string[]): Promise<readonly number[]> {
  const greedy = ["--temperature", "0", "--max-new-tokens", "6", "--json"];
  const { code, stdout, stderr } = await run(["generate", ...args, ...greedy]);
  expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
  return (JSON.parse(stdout) as { readonly tokens: readonly number[] }).tokens;
}

describe("Llama on the command line", () => {
  const model = tinyModel("llama-tiny").file("model");
  const prompt = ["--prompt-tokens", "17", "4", "200"];

  test("a preset trains, and its checkpoint writes the same at any world size", async () => {
    await inFolder(async (folder) => {
      const save = join(folder, "run");
      const data = [
        "--data",
        fixture("llama-tiny/model/config.json"),
        "--batch-size",
        "1",
        "--seq-len",
        "16",
      ];
      const scratch = ["--config-model", "llama-bytes", "--steps", "2", "--world-size", "2"];
      const { code, stderr } = await run(["train", ...scratch, ...data, "--save", save]);
      expect(code, stderr).toBe(0);
      const alone = await generated("--checkpoint", save, ...prompt);
      expect(alone.length).toBe(6);
      expect(await generated("--checkpoint", save, ...prompt, "--world-size", "3")).toEqual(alone);
    });
  });

  testOnGpu("a Hugging Face directory writes the same on the CPU and on a GPU", async () => {
    const cpu = await generated("--model", model, ...prompt, "--world-size", "2");
    expect(await generated("--model", model, ...prompt, "--backend", "webgpu")).toEqual(cpu);
  });
});

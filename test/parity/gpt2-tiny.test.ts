/** The command line against PyTorch's FSDP2 run of gpt2-tiny: same weights, tokens and settings. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { FORMAT } from "../../core/contracts/plugin.ts";
import { registry } from "../../mod.ts";
import { testOnGpu } from "../backends/webgpu/gpu.ts";
import { fixture, inFolder, readLog, run } from "../support/command.ts";
import { GPT2_TINY_OPTIONS, gpt2TinyJson, type Reference } from "../support/gpt2-tiny.ts";

const reference = gpt2TinyJson<Reference>("fsdp2.json");

/** Compares a run's log and exported weights with the reference. */
async function expectParity(folder: string): Promise<void> {
  const log = await readLog(join(folder, "log.jsonl"));
  expect(log.map((line) => line.step!)).toEqual(reference.losses.map((_, i) => i + 1));
  for (const [i, loss] of reference.losses.entries()) {
    expect(Math.abs(log[i]!.loss! - loss) / loss).toBeLessThan(2e-4);
    const norm = reference.grad_norms[i]!;
    expect(Math.abs(log[i]!.grad_norm! - norm) / norm).toBeLessThan(1e-3);
  }
  const safetensors = registry.get(FORMAT, "safetensors");
  const ours = await safetensors.open(join(folder, "weights.safetensors"));
  const theirs = await safetensors.open(fixture("gpt2-tiny/final.safetensors"));
  // PyTorch's state dict names the tied head twice; Hugging Face's files, and ours, once.
  const names = theirs.names.filter((name) => name !== "lm_head.weight");
  expect([...ours.names].sort()).toEqual(names.sort());
  for (const name of names) {
    expect(ours.info(name)).toEqual(theirs.info(name));
    const [a, b] = [(await ours.read(name)) as Float32Array, (await theirs.read(name)) as Float32Array];
    expect(a.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b[i]!)), 0)).toBeLessThan(1e-3);
  }
  await ours.close();
  await theirs.close();
}

describe("train reproduces PyTorch FSDP2's gpt2-tiny", () => {
  const cases: readonly (readonly ["bun" | "deno", number, readonly string[]])[] = [
    ["bun", 1, []],
    ["bun", 2, []],
    ["bun", 4, []],
    ["bun", 2, ["--fsdp-reshard-after-forward", "true", "--collective", "local"]],
    ["bun", 2, ["--backend-options", "matmul=wasm"]],
    ["bun", 2, ["--gradient-accumulation-steps", "2"]],
    ["deno", 2, []],
  ];
  for (const [runtime, worldSize, extra] of cases) {
    test(
      `on ${worldSize} ranks under ${runtime} ${extra.join(" ")}`,
      () => parity(runtime, worldSize, extra),
      60_000,
    );
  }

  const gpu: typeof cases = [
    ["bun", 1, ["--backend", "webgpu"]],
    ["bun", 2, ["--backend", "webgpu", "--fsdp-forward-prefetch"]],
    ["bun", 4, ["--backend", "webgpu"]],
    ["deno", 2, ["--backend", "webgpu", "--webgpu-checks"]],
  ];
  for (const [runtime, worldSize, extra] of gpu) {
    testOnGpu(
      `on ${worldSize} ranks under ${runtime} ${extra.join(" ")}`,
      () => parity(runtime, worldSize, extra),
      120_000,
    );
  }

  async function parity(runtime: "bun" | "deno", worldSize: number, extra: readonly string[]): Promise<void> {
    await inFolder(async (folder) => {
      const out = ["--log", join(folder, "log.jsonl"), "--export", join(folder, "weights.safetensors")];
      const world = ["--fsdp-version", "2", "--world-size", String(worldSize)];
      const { code, stderr } = await run(
        ["train", ...GPT2_TINY_OPTIONS, ...world, ...extra, ...out],
        runtime,
      );
      // Dawn itself prints about limits that it lowers.
      const said = stderr
        .split("\n")
        .filter((line) => line !== "" && !line.startsWith("Warning: maxDynamic"));
      expect({ code, said }).toEqual({ code: 0, said: [] });
      await expectParity(folder);
    });
  }
});

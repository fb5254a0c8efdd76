/** The command line against PyTorch's FSDP2 runs of tiny models: same weights, tokens and settings. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { FORMAT } from "../../core/contracts/plugin.ts";
import { registry } from "../../mod.ts";
import { testOnGpu } from "../backends/webgpu/gpu.ts";
import { inFolder, readLog, run } from "../support/command.ts";
import { type Reference, type TinyModel, tinyModel } from "../support/tiny-model.ts";

/** Runtime, ranks and further options of a run. */
export type ParityCase = readonly [runtime: "bun" | "deno", worldSize: number, extra: readonly string[]];

/** How far from the reference, relatively. */
interface Closeness {
  readonly loss: number;
  readonly norm: number;
  /** Absolutely, after the last step. */
  readonly weight: number;
}

const FLOAT32: Closeness = { loss: 2e-4, norm: 1e-3, weight: 1e-3 };
/** With `--mixed-precision`: Adam turns gradients of little more than rounding into steps of the learning rate. */
const MIXED: Closeness = { loss: 1e-3, norm: 2e-2, weight: 2e-2 };

/** Registers a test for every case; `gpu` ones need an adapter. */
export function testParity(
  name: "gpt2-tiny" | "llama-tiny",
  cases: { readonly cpu: readonly ParityCase[]; readonly gpu: readonly ParityCase[] },
): void {
  const model = tinyModel(name);
  describe(`train reproduces PyTorch FSDP2's ${name}`, () => {
    for (const [kind, register, timeout] of [
      ["cpu", test, 60_000],
      ["gpu", testOnGpu, 120_000],
    ] as const) {
      for (const [runtime, worldSize, extra] of cases[kind]) {
        const title = `on ${worldSize} ranks under ${runtime} ${extra.join(" ")}`;
        register(title, () => reproduce(model, runtime, worldSize, extra), timeout);
      }
    }
  });
}

async function reproduce(model: TinyModel, ...[runtime, worldSize, extra]: ParityCase): Promise<void> {
  await inFolder(async (folder) => {
    const out = ["--log", join(folder, "log.jsonl"), "--export", join(folder, "weights.safetensors")];
    const world = ["--fsdp-version", "2", "--world-size", String(worldSize)];
    const { code, stderr } = await run(["train", ...model.options, ...world, ...extra, ...out], runtime);
    // Dawn itself prints about limits that it lowers.
    const said = stderr.split("\n").filter((line) => line !== "" && !line.startsWith("Warning: maxDynamic"));
    expect({ code, said }).toEqual({ code: 0, said: [] });
    await expectParity(model, folder, extra.includes("--mixed-precision") ? MIXED : FLOAT32);
  });
}

/** Compares a run's log and exported weights with the reference. */
async function expectParity(model: TinyModel, folder: string, within: Closeness): Promise<void> {
  const reference = model.json<Reference>("fsdp2.json");
  const log = await readLog(join(folder, "log.jsonl"));
  expect(log.map((line) => line.step!)).toEqual(reference.losses.map((_, i) => i + 1));
  for (const [i, loss] of reference.losses.entries()) {
    expect(Math.abs(log[i]!.loss! - loss) / loss).toBeLessThan(within.loss);
    const norm = reference.grad_norms[i]!;
    expect(Math.abs(log[i]!.grad_norm! - norm) / norm).toBeLessThan(within.norm);
  }
  const safetensors = registry.get(FORMAT, "safetensors");
  const ours = await safetensors.open(join(folder, "weights.safetensors"));
  const theirs = await safetensors.open(model.file("final.safetensors"));
  // PyTorch's state dict names a tied head twice; Hugging Face's files, and ours, once.
  const tied = model.json<{ tie_word_embeddings?: boolean }>("model/config.json").tie_word_embeddings ?? true;
  const names = theirs.names.filter((name) => !(tied && name === "lm_head.weight"));
  expect([...ours.names].sort()).toEqual(names.sort());
  for (const name of names) {
    expect(ours.info(name)).toEqual(theirs.info(name));
    const [a, b] = [(await ours.read(name)) as Float32Array, (await theirs.read(name)) as Float32Array];
    expect(a.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b[i]!)), 0)).toBeLessThan(
      within.weight,
    );
  }
  await ours.close();
  await theirs.close();
}

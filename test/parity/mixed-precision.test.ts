/** `train --mixed-precision` on the CPU against float32, against itself, and against a GPU. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { FORMAT } from "../../core/contracts/plugin.ts";
import { registry } from "../../mod.ts";
import { testOnGpu } from "../backends/webgpu/gpu.ts";
import { inFolder, readLog, run } from "../support/command.ts";
import { tinyModel } from "../support/tiny-model.ts";

setDefaultTimeout(60_000);

/** Largest relative differences of losses and gradient norms from float32's over 20 steps; seen: a fifth of them. */
const BOUNDS = {
  bf16: { loss: 3e-4, norm: 5e-3 },
  fp16: { loss: 1e-4, norm: 1.5e-3 },
} as const;

interface Result {
  readonly losses: readonly number[];
  readonly norms: readonly number[];
  /** The exported weights' file. */
  readonly weights: Buffer;
  readonly dtypes: readonly string[];
}

/** Trains gpt2-tiny on two ranks. */
async function train(...args: readonly string[]): Promise<Result> {
  return await inFolder(async (folder) => {
    const [log, weights] = [join(folder, "log.jsonl"), join(folder, "weights.safetensors")];
    const { options } = tinyModel("gpt2-tiny");
    const out = ["--world-size", "2", "--log", log, "--export", weights];
    const { code, stderr } = await run(["train", ...options, ...out, ...args]);
    expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
    const lines = await readLog(log);
    const reader = await registry.get(FORMAT, "safetensors").open(weights);
    const dtypes = [...new Set(reader.names.map((name) => reader.info(name).dtype))];
    await reader.close();
    return {
      losses: lines.map((line) => line.loss!),
      norms: lines.map((line) => line.grad_norm!),
      weights: Buffer.from(await Bun.file(weights).arrayBuffer()),
      dtypes,
    };
  });
}

/** The largest relative difference. */
function distance(a: readonly number[], b: readonly number[]): number {
  expect(a.length).toBe(b.length);
  return Math.max(...a.map((value, i) => Math.abs(value / b[i]! - 1)));
}

describe("train --mixed-precision on the CPU", () => {
  const float32 = train();

  for (const precision of ["bf16", "fp16"] as const) {
    test(`${precision} follows float32, keeps float32 weights and gives the same bits again`, async () => {
      const once = await train("--mixed-precision", precision);
      const again = await train("--mixed-precision", precision);
      expect(again.losses).toEqual(once.losses);
      expect(again.norms).toEqual(once.norms);
      expect(again.weights.equals(once.weights)).toBe(true);
      expect(once.dtypes).toEqual(["float32"]);
      const reference = await float32;
      expect(once.losses).not.toEqual(reference.losses);
      expect(distance(once.losses, reference.losses)).toBeLessThan(BOUNDS[precision].loss);
      expect(distance(once.norms, reference.norms)).toBeLessThan(BOUNDS[precision].norm);
    });
  }

  testOnGpu(
    "fp16 is that of a GPU",
    async () => {
      const cpu = await train("--mixed-precision", "fp16");
      const gpu = await train("--mixed-precision", "fp16", "--backend", "webgpu");
      expect(distance(cpu.losses, gpu.losses)).toBeLessThan(BOUNDS.fp16.loss);
      expect(distance(cpu.norms, gpu.norms)).toBeLessThan(BOUNDS.fp16.norm);
    },
    120_000,
  );
});

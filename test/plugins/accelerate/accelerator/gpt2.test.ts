/** An accelerator's training of a language model against PyTorch's FSDP2. */
import { describe, expect, test } from "bun:test";
import { launch } from "../../../../mod.ts";
import { testOnGpu } from "../../../backends/webgpu/gpu.ts";
import { type Reference, tinyModel } from "../../../support/tiny-model.ts";
import { type GPT2Run, STEPS } from "./gpt2-program.ts";

const PROGRAM = new URL("gpt2-program.ts", import.meta.url).href;
const reference = tinyModel("gpt2-tiny").json<Reference>("fsdp2.json");

async function reproduce(worldSize: number, args: GPT2Run): Promise<void> {
  for (const result of await launch(PROGRAM, { worldSize, collective: "local", args })) {
    const steps = result as Awaited<ReturnType<typeof import("./gpt2-program.ts").main>>;
    expect(steps.length).toBe(STEPS);
    for (const [i, [loss, norm]] of steps.entries()) {
      expect(Math.abs(loss / reference.losses[i]! - 1)).toBeLessThan(2e-4);
      expect(Math.abs(norm / reference.grad_norms[i]! - 1)).toBeLessThan(1e-3);
    }
  }
}

describe("an accelerator reproduces PyTorch FSDP2's gpt2-tiny", () => {
  const cases: readonly [number, 1 | 2, number][] = [
    [1, 2, 4],
    [2, 2, 1],
    [2, 1, 2],
    [4, 2, 1],
  ];
  for (const [worldSize, version, accumulation] of cases) {
    test(
      `on ${worldSize} ranks under FSDP${version} in ${accumulation} microbatches`,
      () => reproduce(worldSize, { version, accumulation, backend: "cpu" }),
      30_000,
    );
  }

  // The launcher has another backend.
  testOnGpu(
    "on WebGPU, which the script asks for",
    () => reproduce(2, { version: 2, accumulation: 2, backend: "webgpu" }),
    60_000,
  );
});

/**
 * `bun test/bench/gpu.ts [ranks...]`: training speed of GPT-2 124M on the GPUs of this machine (sequence 1024, batch 8 a
 * rank, AdamW, 10 steps after 3), beside PyTorch FSDP2 in the same run where `python3` has torch with CUDA.
 */
import process from "node:process";
import { runtimeDescription } from "../../core/runtime/runtime.ts";
import { textTable } from "../../core/runtime/text-table.ts";
import { launch } from "../../mod.ts";
import type { GpuBenchArgs, GpuBenchResult } from "./gpu-program.ts";

const args: GpuBenchArgs = { preset: "gpt2", batch: 8, seqLen: 1024, warmup: 3, steps: 10, mode: "f32" };
const program = new URL("gpu-program.ts", import.meta.url).href;
const worlds = process.argv.length > 2 ? process.argv.slice(2).map(Number) : [1];
const rows: string[][] = [];
const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;

/** Tokens per second of one GPU, by mode. */
const alone = new Map<string, number>();

for (const mode of ["f32", "f16 reduce", "f16"] as const) {
  for (const worldSize of worlds) {
    if (mode === "f16 reduce" && worldSize === 1) continue;
    // Over several GPUs parameters stay gathered until their backward: transfers cost more than memory there.
    const keep = worldSize > 1 ? { reshardAfterForward: false } : {};
    const name = `ours ${mode}${worldSize > 1 ? ", not resharded after forward" : ""}`;
    try {
      const results = (await launch(program, {
        worldSize,
        backend: "webgpu",
        args: { ...args, ...keep, mode },
      })) as GpuBenchResult[];
      const [first] = results as [GpuBenchResult];
      // A step is as long as its slowest rank's.
      const step = median(first.steps.map((_, i) => Math.max(...results.map((result) => result.steps[i]!))));
      const tokens = (worldSize * args.batch * args.seqLen * 1000) / step;
      if (worldSize === 1) alone.set(mode, tokens);
      const one = alone.get(mode === "f16" ? "f16" : "f32");
      const equal = new Set(first.peaks).size === 1 ? "equal" : "differ";
      rows.push([
        name,
        String(worldSize),
        step.toFixed(1),
        `${tokens.toFixed(0)}${one === undefined || worldSize === 1 ? "" : ` (${(tokens / one).toFixed(2)}x)`}`,
        `${(first.peakBytes / 2 ** 30).toFixed(2)} GiB, peaks ${equal}`,
        `${first.losses[0]!.toFixed(3)} -> ${first.losses.at(-1)!.toFixed(3)}`,
      ]);
      const times = first.steps.map((ms) => ms.toFixed(0)).join(" ");
      process.stderr.write(`${name} ${worldSize}: ${first.device}; ms ${times}\n`);
    } catch (error) {
      rows.push([name, String(worldSize), (error as Error).message]);
    }
  }
}
console.log(
  `${runtimeDescription()}, GPT-2 124M, sequence ${args.seqLen}, batch ${args.batch} a rank, AdamW`,
);
console.log(
  "\nshare of a step's device time by kernel family, one GPU, in an own run (timing slows a step down):",
);
for (const mode of ["f32", "f16"] as const) {
  try {
    const backendSettings = { profile: "on" };
    const profiled: GpuBenchArgs = { ...args, mode, steps: 3 };
    const [result] = (await launch(program, {
      backend: "webgpu",
      backendSettings,
      args: profiled,
    })) as GpuBenchResult[];
    const { families } = result!;
    const total = families.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
    const shares = families
      .slice(0, 8)
      .map(({ family, milliseconds }) => `${family} ${((100 * milliseconds) / total).toFixed(0)} %`);
    console.log(`  ${mode}: ${total.toFixed(1)} ms: ${shares.join(", ")}`);
  } catch (error) {
    console.log(`  ${mode}: ${(error as Error).message}`);
  }
}
const script = new URL("torch-fsdp2.py", import.meta.url).pathname;
const torch = Bun.spawn(["python3", script, ...worlds.map(String)], {
  stdout: "pipe",
  stderr: "pipe",
  stdin: "ignore",
});
const output = await new Response(torch.stdout).text();
for (const line of output.split("\n").filter((text) => text.startsWith("{"))) {
  const { mode, world, ms, tokens, peak } = JSON.parse(line) as Record<string, number | string>;
  rows.push([`PyTorch ${mode}`, String(world), String(ms), String(tokens), `${peak} GiB`]);
}
if (!output.includes("{")) rows.push(["PyTorch", "", "not measured: python3 here has no torch with CUDA"]);

console.log(`\nmedian of ${args.steps} steps after ${args.warmup}:`);
const header = ["what", "GPUs", "ms/step", "tokens/s", "peak a rank", "loss"];
for (const line of textTable(rows, { header })) console.log(line);

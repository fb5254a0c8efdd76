/**
 * `bun run bench`: training speed of the 3.26 million parameter GPT (4 layers, 256 wide, bytes) on the CPU, sequence
 * 128, batch 8 a rank, and where the time goes. Figures are of this machine at this moment; compare medians.
 */
import { cpus } from "node:os";
import { runtimeDescription } from "../../core/runtime/runtime.ts";
import { textTable } from "../../core/runtime/text-table.ts";
import { launch } from "../../mod.ts";
import { printMatmulRates } from "./matmul.ts";
import type { BenchArgs, BenchResult } from "./train-program.ts";

const args: Omit<BenchArgs, "dtype"> = { preset: "gpt2-3m", batch: 8, seqLen: 128, warmup: 3, steps: 10 };
const program = new URL("train-program.ts", import.meta.url).href;

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;

async function measure(worldSize: number, matmul: string, dtype: BenchArgs["dtype"]): Promise<string[]> {
  const options = { worldSize, backendSettings: { matmul }, args: { ...args, dtype } };
  const results = (await launch(program, options)) as BenchResult[];
  // A step is as long as its slowest rank's.
  const steps = results[0]!.steps.map((_, i) => Math.max(...results.map((result) => result.steps[i]!)));
  const step = median(steps);
  const mean = results[0]!.steps.reduce((a, b) => a + b, 0) / args.steps;
  const { matmul: products, attention, other, communication } = results[0]!.shares;
  const percent = (ms: number) => `${((100 * ms) / mean).toFixed(0)} %`;
  const rest = mean - products - attention - other - communication;
  const tokens = (worldSize * args.batch * args.seqLen * 1000) / step;
  return [
    String(worldSize),
    matmul,
    dtype,
    step.toFixed(0),
    tokens.toFixed(0),
    (tokens / worldSize).toFixed(0),
    ...[products, attention, other, communication, rest].map(percent),
    (results[0]!.peakBytes / 2 ** 20).toFixed(0),
  ];
}

console.log(`${runtimeDescription()}, ${cpus().length} x ${cpus()[0]!.model}\n`);
await printMatmulRates(2);
console.log(
  `\nGPT 3.26 M, sequence ${args.seqLen}, batch ${args.batch} a rank, FSDP2, AdamW; ${args.steps} steps after ${args.warmup}`,
);
const rows: string[][] = [];
for (const engine of ["blas", "wasm"]) {
  for (const worldSize of [1, 2]) {
    for (const dtype of ["float32", "bfloat16"] as const) {
      try {
        rows.push(await measure(worldSize, engine, dtype));
      } catch (error) {
        rows.push([String(worldSize), engine, dtype, (error as Error).message]);
      }
    }
  }
}
const header = [
  "ranks",
  "matmul",
  "compute",
  "ms/step",
  "tokens/s",
  "a rank",
  "matmul",
  "attention",
  "other",
  "comm",
  "rest",
  "MiB/rank",
];
for (const line of textTable(rows, {
  header,
  align: ["right", "left", "left", ...header.slice(3).map(() => "right" as const)],
})) {
  console.log(line);
}

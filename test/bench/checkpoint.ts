/**
 * `bun test/bench/checkpoint.ts [MiB] [folder]`: saving and loading a sharded state, beside a plain writer that syncs, a plain
 * reader, and SHA-256, over the same bytes in the same run. MB/s over all ranks, best of the rounds; read from the disk,
 * and again from the page cache. Then what a save costs a training loop, in the background and not.
 *
 * @module
 */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { threadsTransport } from "../../backends/collectives/threads/transport.ts";
import { runtimeDescription } from "../../core/runtime/runtime.ts";
import { textTable } from "../../core/runtime/text-table.ts";
import type { CheckpointBenchArgs, CheckpointTimes } from "./checkpoint-program.ts";

const mebibytes = Number(process.argv[2] ?? 512);
const folder = await mkdtemp(join(process.argv[3] ?? tmpdir(), "fsdp-bench-"));
const bytes = mebibytes * 2 ** 20;
const module = new URL("./checkpoint-program.ts", import.meta.url).href;

const rates: string[][] = [];
const costs: string[][] = [];
try {
  for (const worldSize of [1, 2, 4]) {
    const args: CheckpointBenchArgs = { folder: join(folder, String(worldSize)), bytes, rounds: 10 };
    await mkdir(args.folder);
    const job = threadsTransport.launch({ module, export: "timeCheckpoints", args }, { worldSize });
    const times = (await job.results) as readonly CheckpointTimes[];
    const best = (name: keyof CheckpointTimes): number => Math.min(...(times[0]?.[name] ?? []));
    const rate = (name: keyof CheckpointTimes): number => bytes / best(name) / 1e6;
    const limit = Math.min(rate("write"), rate("hash"));
    rates.push([
      String(worldSize),
      ...(["write", "hash", "save"] as const).map((name) => rate(name).toFixed(0)),
      (rate("save") / limit).toFixed(2),
      ...(["read", "load"] as const).map((name) => rate(name).toFixed(0)),
      (rate("load") / rate("read")).toFixed(2),
      ...(["cachedRead", "cachedLoad"] as const).map((name) => rate(name).toFixed(0)),
    ]);
    const milliseconds = (name: keyof CheckpointTimes): string => (best(name) * 1000).toFixed(0);
    costs.push([String(worldSize), ...(["quiet", "background", "blocking"] as const).map(milliseconds)]);
    await rm(args.folder, { recursive: true });
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
console.log(`${runtimeDescription()}, ${mebibytes} MiB in all\n`);
const right = Array.from({ length: 10 }, () => "right" as const);
const header = [
  "ranks",
  "write + fsync",
  "SHA-256",
  "save",
  "of slower",
  "read",
  "load",
  "of read",
  "cached read",
  "cached load",
];
for (const line of textTable(rates, { header, align: right })) console.log(line);
console.log("\nms for the same steps");
const costHeader = ["ranks", "no save", "save in background", "save"];
for (const line of textTable(costs, { header: costHeader, align: right })) console.log(line);

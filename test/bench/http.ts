/**
 * Saving and loading through the checkpoint service beside the directory store, in MB/s over loopback, and an export of
 * it beside reading the same shards from the disk.
 *
 *     bun test/bench/http.ts [MIB of state] [FOLDER]
 *
 * The service runs in a process of its own; ranks are threads of this one.
 *
 * @module
 */
import { mkdtemp, open, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { threadsTransport } from "../../backends/collectives/threads/transport.ts";
import { cpuCount, runtimeDescription } from "../../core/runtime/runtime.ts";
import { textTable } from "../../core/runtime/text-table.ts";
import { spawnService } from "../checkpoint/server/service.ts";
import { uncache } from "./bench-state.ts";
import type { HttpBenchArgs, HttpTimes } from "./http-program.ts";

const mebibytes = Number(process.argv[2] ?? 512);
const folder = await mkdtemp(join(process.argv[3] ?? tmpdir(), "fsdp-bench-"));
const bytes = mebibytes * 2 ** 20;
const module = new URL("./http-program.ts", import.meta.url).href;
const ROUNDS = 10;
const CHUNK = 2 ** 20;

/** The seconds that reading a checkpoint's shards takes. */
async function readShards(checkpoint: string): Promise<number> {
  const begin = performance.now();
  const buffer = new Uint8Array(CHUNK);
  for (const name of await readdir(checkpoint)) {
    if (!name.endsWith(".safetensors")) continue;
    const file = await open(join(checkpoint, name));
    for (;;) if ((await file.read(buffer, 0, CHUNK)).bytesRead === 0) break;
    await file.close();
  }
  return (performance.now() - begin) / 1000;
}

async function uncacheAll(folder: string): Promise<void> {
  for (const name of await readdir(folder)) uncache(join(folder, name));
}

async function readExport(url: string): Promise<number> {
  const begin = performance.now();
  const response = await fetch(url);
  let length = 0;
  for await (const chunk of response.body!) length += chunk.length;
  if (length < bytes * 0.99) throw new Error(`the export has ${length} bytes`);
  return (performance.now() - begin) / 1000;
}

/** Seconds in which a plain server takes, and gives, as many bytes. */
async function plainHttp(): Promise<{ readonly up: number; readonly down: number }> {
  const script = fileURLToPath(new URL("./http-plain.ts", import.meta.url));
  const server = Bun.spawn([process.execPath, script], { stdin: "ignore", stdout: "pipe" });
  const { value } = await server.stdout.getReader().read();
  const url = new TextDecoder().decode(value).trim();
  const body = new Uint8Array(8 * 2 ** 20);
  const began = performance.now();
  for (let at = 0; at < bytes; at += body.length) await fetch(url, { method: "POST", body });
  const between = performance.now();
  for await (const _ of (await fetch(`${url}?bytes=${bytes}`)).body!);
  const ended = performance.now();
  server.kill();
  await server.exited;
  return { up: (between - began) / 1000, down: (ended - between) / 1000 };
}

const rates: string[][] = [];
const exports: string[][] = [];
const plain: { up: number; down: number }[] = [];
const rate = (seconds: readonly number[]): number => bytes / Math.min(...seconds) / 1e6;
for (const worldSize of [1, 2]) {
  const place = join(folder, String(worldSize));
  const service = await spawnService("bun", join(place, "service"));
  try {
    const plainFolder = join(place, "directory");
    const served = join(place, "service", "bench");
    const places = [
      { location: plainFolder, folder: plainFolder },
      { location: `${service.url}/runs/bench`, folder: served },
    ];
    const args: HttpBenchArgs = { places, bytes, rounds: ROUNDS };
    const job = threadsTransport.launch({ module, export: "timeStores", args }, { worldSize });
    const [directory, http] = ((await job.results) as readonly (readonly HttpTimes[])[])[0]!;
    for (const what of ["save", "load"] as const) {
      const [near, far] = [rate(directory![what]), rate(http![what])];
      rates.push([String(worldSize), what, near.toFixed(0), far.toFixed(0), (far / near).toFixed(2)]);
    }
    const name = `step-${String(ROUNDS).padStart(8, "0")}`;
    const shards: number[] = [];
    const exported: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      plain.push(await plainHttp());
      await uncacheAll(join(served, name));
      shards.push(await readShards(join(served, name)));
      await uncacheAll(join(served, name));
      exported.push(await readExport(`${service.url}/v1/runs/bench/checkpoints/${name}/export.safetensors`));
    }
    const ratio = rate(exported) / rate(shards);
    exports.push([String(worldSize), rate(shards).toFixed(0), rate(exported).toFixed(0), ratio.toFixed(2)]);
  } finally {
    await service.close();
    await rm(place, { recursive: true, force: true });
  }
}
await rm(folder, { recursive: true, force: true });

console.log(
  `${runtimeDescription()}, ${cpuCount()} cores, ${mebibytes} MiB of state, MB/s of the best round, files read from the disk\n`,
);
const right = Array.from({ length: 4 }, () => "right" as const);
const header = ["ranks", "", "directory", "HTTP", "ratio"];
for (const line of textTable(rates, { header, align: ["right", "left", ...right.slice(1)] }))
  console.log(line);
console.log();
for (const line of textTable(exports, {
  header: ["ranks", "shards from disk", "export", "ratio"],
  align: right,
}))
  console.log(line);
const [up, down] = [rate(plain.map((one) => one.up)), rate(plain.map((one) => one.down))];
console.log(`\nA plain server of this runtime takes ${up.toFixed(0)} and gives ${down.toFixed(0)}`);

/**
 * Load: 64 ranks that upload at once to a service on loopback.
 *
 *     bun test/bench/http-load.ts [SECONDS] [RANKS] [MIB a shard]
 *
 * Fails unless every answer is a success or 429, and every checkpoint verifies.
 *
 * @module
 */
import process from "node:process";
import { runtimeDescription } from "../../core/runtime/runtime.ts";
import { textTable } from "../../core/runtime/text-table.ts";
import { makeFolder, residentBytes, spawnService } from "../checkpoint/server/service.ts";
import { uploadStorm } from "../support/upload-storm.ts";

const [seconds = 30, ranks = 64, mebibytes = 8] = process.argv.slice(2).map(Number);
const { folder, remove } = makeFolder();
const service = await spawnService("bun", folder);
try {
  const storm = await uploadStorm({ url: service.url, ranks, shardBytes: mebibytes * 2 ** 20, seconds });
  const statuses = Object.entries(storm.statuses).map(([status, count]) => `${status}: ${count}`);
  const memory = await residentBytes(service.child!.pid);
  console.log(`${runtimeDescription()}, ${ranks} ranks, ${mebibytes} MiB a shard\n`);
  const rows = [
    ["saves", String(storm.saves)],
    ["uploaded and committed at", `${(storm.bytes / storm.uploadSeconds / 1e6).toFixed(0)} MB/s`],
    ["answers", statuses.join(", ")],
    ["faults", String(storm.faults.length)],
    ["memory of the service at the end", `${(memory / 2 ** 20).toFixed(0)} MiB`],
  ];
  for (const line of textTable(rows)) console.log(line);
  const bad = Object.keys(storm.statuses).filter((status) => Number(status) >= 300 && status !== "429");
  if (bad.length > 0 || storm.faults.length > 0) process.exitCode = 1;
} finally {
  await service.close();
  remove();
}

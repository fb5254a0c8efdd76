/**
 * Micro benchmark of the threads transport: `bun test/bench/collectives.ts [ranks]`.
 *
 * GB/s is the whole buffer's bytes over the time of the slowest rank.
 *
 * @module
 */
import process from "node:process";
import { threadsTransport } from "../../backends/collectives/threads/transport.ts";
import { runtimeDescription } from "../../core/runtime/runtime.ts";
import type { CollectiveTimes } from "./collectives-programs.ts";

const worldSize = Number(process.argv[2] ?? 2);
const module = new URL("./collectives-programs.ts", import.meta.url).href;
console.log(`${runtimeDescription()}, ${worldSize} ranks; barrier in us, the others in GB/s`);
for (const dtype of ["float32", "float16", "bfloat16"] as const) {
  for (const shared of [true, false]) {
    for (const mebibytes of [1, 4, 16]) {
      const bytes = mebibytes * 2 ** 20;
      const args = { bytes, shared, dtype, rounds: Math.max(10, 100 / mebibytes) };
      const job = threadsTransport.launch({ module, export: "timeCollectives", args }, { worldSize });
      const times = (await job.results) as readonly CollectiveTimes[];
      const slowest = (name: keyof CollectiveTimes): number => Math.max(...times.map((time) => time[name]));
      const rate = (name: keyof CollectiveTimes): string => (bytes / slowest(name) / 1e9).toFixed(2);
      const where = shared ? "host memory" : "private memory, staged";
      console.log(
        `${mebibytes} MiB of ${dtype}, ${where}: barrier ${(slowest("barrier") * 1e6).toFixed(0)}, ` +
          `allGather ${rate("allGather")}, reduceScatter ${rate("reduceScatter")}, allReduce ${rate("allReduce")}`,
      );
    }
  }
}

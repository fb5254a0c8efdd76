/** A script whose top level is the run: every rank adds its number to a sum. */
import process from "node:process";
import { currentRank, FullyShardedDataParallelPlugin } from "../../../../mod.ts";

const { rank, worldSize, collective, device } = currentRank();
const sum = new Float64Array([rank + 1]);
await collective.allReduce(sum, "sum", "float64").wait();
const { config } = new FullyShardedDataParallelPlugin();
console.log(
  JSON.stringify({
    rank,
    worldSize,
    sum: sum[0],
    argv: process.argv.slice(2),
    backend: device.backend.name,
    version: config.version,
    reshard: config.reshardAfterForward,
  }),
);

/**
 * Run by `killed.test.ts`: `ROOT POINT HALF`. Saves steps 2 to 5, every second one in the background, the first two past the page
 * cache, over two ranks, keeping one checkpoint, and kills itself at the operation of that number, or in its middle. Prints
 * their names when it comes to its end.
 *
 * @module
 */
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { directoryStore } from "../../checkpoint/stores/directory.ts";
import { faultFileSystem } from "./fault-file-system.ts";
import { killedState } from "./killed-state.ts";
import { runRanks } from "./ranks.ts";

const [root, point, half] = process.argv.slice(2);
const operations: string[] = [];
const fs = faultFileSystem(async (operation, doHalf) => {
  if (operations.push(operation) - 1 !== Number(point)) return;
  if (half === "half") await doHalf();
  process.kill(process.pid, "SIGKILL");
});
const [direct, cached] = [0, Number.POSITIVE_INFINITY].map((directFrom) =>
  nativeCheckpointer(directoryStore(root!, { fs, directFrom }), { keepLast: 1, now: () => 0 }),
);
await runRanks(2, async (collective) => {
  for (const step of [2, 3, 4, 5]) {
    const checkpointer = step < 4 ? direct! : cached!;
    const state = killedState(step, collective.rank);
    if (step % 2 === 0) await checkpointer.save(state, step, collective);
    else await (await checkpointer.saveAsync(state, step, collective)).wait();
  }
});
await direct!.close();
await cached!.close();
console.log(JSON.stringify(operations));

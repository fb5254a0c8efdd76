/** A script with a function for each way to end. */
import { setTimeout as sleep } from "node:timers/promises";
import { type Rank, ShapeError } from "../../../../mod.ts";

export async function main(
  { rank, collective, stopRequested }: Rank,
  argv: readonly string[],
): Promise<void> {
  const [what] = argv;
  if (what === "fail" && rank === 1) throw new ShapeError("rows do not fit");
  if (what === "exit" && rank === 1) process.exit(5);
  if (what === "heed") {
    // Ranks agree on when to stop.
    for (const stop = new Float64Array(1); stop[0] === 0; ) {
      if (rank === 0 && !stopRequested()) console.log("working");
      stop[0] = stopRequested() ? 1 : 0;
      await collective.allReduce(stop, "sum", "float64").wait();
      await sleep(20);
    }
    console.log(`rank ${rank} stopped in order`);
    return;
  }
  if (what === "ignore") {
    for (;;) {
      if (rank === 0) console.log("working");
      await sleep(20);
    }
  }
  // The others wait for rank 1, which never comes.
  if (what !== undefined) await collective.barrier().wait();
  console.log(`rank ${rank} done`);
}

export async function train({ rank }: Rank): Promise<void> {
  console.log(`rank ${rank} trains`);
}

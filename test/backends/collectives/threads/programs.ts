/**
 * Rank programs that end badly, or leave something behind.
 *
 * @module
 */
import process from "node:process";
import { CollectiveError, StateError } from "../../../../core/contracts/errors.ts";
import type { RankContext } from "../../../../core/contracts/transport.ts";

/** How `badEnd` ends. */
export type BadEnd = "rejection" | "exception" | "exit" | "uncloneable" | "collective";

/** Rank 1 ends in a way that its function does not see; the others wait for it. */
export async function badEnd(
  { rank, collective }: RankContext,
  args: { readonly how: BadEnd },
): Promise<unknown> {
  if (rank !== 1) return collective.barrier().wait();
  if (args.how === "rejection") void Promise.reject(new StateError("nobody awaits this"));
  if (args.how === "exception") {
    setTimeout(() => {
      throw new StateError("nobody catches this");
    });
  }
  if (args.how === "exit") process.exit(3);
  if (args.how === "uncloneable") return () => 1;
  if (args.how === "collective") throw new CollectiveError("rank 7 of another job", 7);
  await new Promise(() => {});
  return undefined;
}

/** Leaves a timer that would keep its thread alive. */
export async function lingeringTimer({ rank }: RankContext): Promise<number> {
  setInterval(() => {}, 1000);
  return rank;
}

/** Computes for a minute without a look at anything. */
export async function computeForLong({ report }: RankContext): Promise<void> {
  report("computing");
  for (const end = Date.now() + 60_000; Date.now() < end; );
}

/** Views made before the memory grew are given to collectives after it. */
export async function grownMemory({ rank, collective, hostMemory }: RankContext): Promise<readonly number[]> {
  const memory = hostMemory!;
  memory.grow(1);
  const input = new Float32Array(memory.buffer, 64, 4).fill(rank + 1);
  memory.grow(40);
  const far = new Float32Array(memory.buffer, 40 * 65536, 4).fill(10 * (rank + 1));
  const near = new Float32Array(4);
  await collective.allGather(new Float32Array(4 * collective.size), input).wait();
  const works = [collective.allReduce(input, "sum", "float32"), collective.allReduce(far, "sum", "float32")];
  for (const work of works) await work.wait();
  near.set(input);
  return [near[0]!, far[3]!];
}

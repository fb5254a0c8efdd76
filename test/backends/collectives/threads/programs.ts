/**
 * Rank programs that end badly, or leave something behind.
 *
 * @module
 */
import process from "node:process";
import { cpuBackend } from "../../../../backends/cpu/mod.ts";
import type { Collective } from "../../../../core/contracts/collective.ts";
import { CollectiveError, StateError } from "../../../../core/contracts/errors.ts";
import type { RankContext } from "../../../../core/contracts/transport.ts";
import { allGather, reduceScatter } from "../../../../core/engine/transfer.ts";
import { Device } from "../../../../core/tensor/device.ts";
import { remote } from "../../../support/remote-backend.ts";

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

/** Steps of transfers of a device that the host does not see: sums of what arrived, and where the windows were. */
export async function remoteSteps({
  rank,
  collective,
}: RankContext): Promise<{ readonly sums: readonly number[]; readonly end: number }> {
  const { size } = collective;
  const backend = remote(await cpuBackend.create({ settings: { matmul: "plain", kernels: "plain" } }));
  const device = new Device(backend);
  let end = 0;
  const windows = (byteLength: number): ReturnType<Collective["window"]> => {
    const window = collective.window(byteLength);
    end = Math.max(end, window.bytes.byteOffset + byteLength);
    return window;
  };
  const group: Collective = new Proxy(collective, {
    get(target, key) {
      const value: unknown = key === "window" ? windows : Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const shard = device.full([1000], rank + 1);
  const whole = device.allocate([1000 * size], "float32");
  const reduced = device.allocate([1000], "float32");
  const sums: number[] = [];
  for (let step = 0; step < 30; step++) {
    await allGather(group, whole, shard).wait();
    const gathered = await whole.data();
    await reduceScatter(group, reduced, whole, "sum").wait();
    const mine = await reduced.data();
    sums.push(Array.from(gathered, Number).reduce((a, b) => a + b) + Number(mine[999]));
  }
  await backend.dispose();
  return { sums, end };
}

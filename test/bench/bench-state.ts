/**
 * What the checkpoint benchmarks have in common: a state over all ranks, a clock that all of them share, and files that are
 * read from the disk.
 *
 * @module
 */
import { spawnSync } from "node:child_process";
import type { ShardedState } from "../../core/contracts/checkpointer.ts";
import type { Collective } from "../../core/contracts/collective.ts";
import type { StoredArray } from "../../core/contracts/dtype.ts";

const TENSORS = 24;
const COLUMNS = 1024;

/** A rank's part of a state of `bytes` bytes, sharded along rows; `values` are its memory. */
export function benchState(
  bytes: number,
  { rank, size }: Collective,
): { readonly state: ShardedState; readonly values: readonly Float32Array<SharedArrayBuffer>[] } {
  const rows = Math.floor(bytes / TENSORS / 4 / COLUMNS / size);
  const values = Array.from({ length: TENSORS }, (_, t) => {
    const array = new Float32Array(new SharedArrayBuffer(rows * COLUMNS * 4));
    for (let i = 0; i < array.length; i++) array[i] = (i * 2654435761 + t * 40503 + rank) % 1000003;
    return array;
  });
  const state: ShardedState = {
    tensors: values.map((array, t) => ({
      name: `model.layer.${t}.weight`,
      dtype: "float32",
      shape: [rows * size, COLUMNS],
      pieces: [
        {
          offsets: [rank * rows, 0],
          sizes: [rows, COLUMNS],
          read: async () => array,
          view: () => array,
          write: (data: StoredArray) => {
            if (data !== array) array.set(data as Float32Array);
          },
        },
      ],
    })),
    values: {},
    rankValues: {},
  };
  return { state, values };
}

/** Seconds until the last rank has run. Collective. */
export async function secondsOf(collective: Collective, run: () => Promise<unknown>): Promise<number> {
  await collective.barrier().wait();
  const begin = performance.now();
  await run();
  await collective.barrier().wait();
  return (performance.now() - begin) / 1000;
}

/**
 * Drops a file from the page cache, where the system has a `dd` that can. It is read before, so that the pages it is read to
 * next are in memory: those which a virtual machine's host took back cost more to get again than reading does, and whoever
 * is timed first would pay for them.
 */
export function uncache(path: string): void {
  spawnSync("dd", [`if=${path}`, "of=/dev/null", "bs=1M"]);
  spawnSync("dd", [`if=${path}`, "iflag=nocache", "count=0"]);
}

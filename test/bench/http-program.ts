/**
 * What the ranks of the HTTP benchmark run: saves and loads of one state in turn at every place.
 *
 * @module
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { rankFile } from "../../checkpoint/rank-file.ts";
import { openDirectoryStore } from "../../checkpoint/stores/directory.ts";
import { openHttpStore } from "../../checkpoint/stores/http/store.ts";
import type { Checkpointer, ShardedState } from "../../core/contracts/checkpointer.ts";
import type { StoredArray } from "../../core/contracts/dtype.ts";
import type { RankContext } from "../../core/contracts/transport.ts";

/** Where a state is saved, and the folder on this machine where that puts its files. */
export interface HttpBenchPlace {
  readonly location: string;
  readonly folder: string;
}

/** What is measured. */
export interface HttpBenchArgs {
  readonly places: readonly HttpBenchPlace[];
  /** Bytes of the whole state. */
  readonly bytes: number;
  readonly rounds: number;
}

/** Seconds of one rank at one place, one entry a round. */
export interface HttpTimes {
  readonly save: number[];
  readonly load: number[];
}

const TENSORS = 24;
const COLUMNS = 1024;

/** Times saving and loading, place by place in each round: what else the machine does meets all of them. */
export async function timeStores(
  { collective, rank, worldSize }: RankContext,
  { places, bytes, rounds }: HttpBenchArgs,
): Promise<readonly HttpTimes[]> {
  const rows = Math.floor(bytes / TENSORS / 4 / COLUMNS / worldSize);
  const values = Array.from({ length: TENSORS }, (_, t) => {
    const array = new Float32Array(new SharedArrayBuffer(rows * COLUMNS * 4));
    for (let i = 0; i < array.length; i++) array[i] = (i * 2654435761 + t * 40503 + rank) % 1000003;
    return array;
  });
  const state: ShardedState = {
    tensors: values.map((array, t) => ({
      name: `model.layer.${t}.weight`,
      dtype: "float32",
      shape: [rows * worldSize, COLUMNS],
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
  const stores = places.map(({ location, folder }) => {
    const checkpointer = nativeCheckpointer((openHttpStore(location) ?? openDirectoryStore(location))!);
    return { checkpointer, folder, times: { save: [], load: [] } as HttpTimes };
  });
  const time = async (run: () => Promise<unknown>): Promise<number> => {
    await collective.barrier().wait();
    const begin = performance.now();
    await run();
    await collective.barrier().wait();
    return (performance.now() - begin) / 1000;
  };
  for (let step = 1; step <= rounds; step++) {
    // Other bytes than the round before: what is stored already would not be stored again.
    for (const array of values) array[0] = step;
    for (const { checkpointer, folder, times } of stores) {
      let name = "";
      const save = async () => {
        name = (await checkpointer.save(state, step, collective)).name;
      };
      times.save.push(await time(save));
      uncache(join(folder, name, rankFile(rank)));
      times.load.push(await time(() => checkpointer.load(state, "latest", collective)));
      if (rank === 0 && step < rounds) await clear(checkpointer);
      await collective.barrier().wait();
    }
  }
  for (const { checkpointer } of stores) await checkpointer.close();
  return stores.map(({ times }) => times);
}

/** Drops a file from the page cache, where the system has a `dd` that can. */
export function uncache(path: string): void {
  spawnSync("dd", [`if=${path}`, "iflag=nocache", "count=0"]);
}

async function clear(checkpointer: Checkpointer): Promise<void> {
  for (const { name } of await checkpointer.list()) await checkpointer.delete(name);
}

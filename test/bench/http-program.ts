/**
 * What the ranks of the HTTP benchmark run: saves and loads of one state in turn at every place.
 *
 * @module
 */
import { join } from "node:path";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { rankFile } from "../../checkpoint/rank-file.ts";
import { openDirectoryStore } from "../../checkpoint/stores/directory.ts";
import { openHttpStore } from "../../checkpoint/stores/http/store.ts";
import type { Checkpointer } from "../../core/contracts/checkpointer.ts";
import type { RankContext } from "../../core/contracts/transport.ts";
import { benchState, secondsOf, uncache } from "./bench-state.ts";

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

/** Times saving and loading, place by place in each round: what else the machine does meets all of them. */
export async function timeStores(
  { collective, rank }: RankContext,
  { places, bytes, rounds }: HttpBenchArgs,
): Promise<readonly HttpTimes[]> {
  const { state, values } = benchState(bytes, collective);
  const stores = places.map(({ location, folder }) => {
    const checkpointer = nativeCheckpointer((openHttpStore(location) ?? openDirectoryStore(location))!);
    return { checkpointer, folder, times: { save: [], load: [] } as HttpTimes };
  });
  const time = (run: () => Promise<unknown>): Promise<number> => secondsOf(collective, run);
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

async function clear(checkpointer: Checkpointer): Promise<void> {
  for (const { name } of await checkpointer.list()) await checkpointer.delete(name);
}

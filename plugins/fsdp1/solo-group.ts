/**
 * A group of this rank alone: what NO_SHARD cuts parameters over, which is not at all.
 *
 * @module
 */
import type { Collective, SharedInputs, SharedWindow, Work } from "../../core/contracts/collective.ts";
import { bytesOf, type HostArray } from "../../core/contracts/dtype.ts";

const DONE: Work = Object.freeze({ wait: () => Promise.resolve() });

function copied(target: HostArray, source: HostArray): Work {
  bytesOf(target).set(bytesOf(source));
  return DONE;
}

/** The group of `world`'s rank alone. Needs no agreement of the others, and ends with `world`. */
export function soloGroup(world: Collective): Collective {
  const group: Collective = {
    name: world.name,
    rank: 0,
    size: 1,
    allGather: copied,
    reduceScatter: copied,
    allReduce: () => DONE,
    broadcast: () => DONE,
    barrier: () => DONE,
    async share(input, filled): Promise<SharedInputs> {
      await filled;
      return { inputs: [input], release: () => {}, released: Promise.resolve() };
    },
    window: (byteLength): SharedWindow => ({ bytes: new Uint8Array(byteLength), release: () => {} }),
    split: async () => group,
    abort: (reason) => world.abort(reason),
    close: async () => {},
  };
  return group;
}

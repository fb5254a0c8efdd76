/**
 * A group of any size of which one rank alone exists: its operations move nothing and end at once. What a rank allocates
 * and asks of the others does not depend on what they answer.
 *
 * @module
 */
import type { Collective, Work } from "../../../core/contracts/collective.ts";
import { StateError } from "../../../core/contracts/errors.ts";
import { type DeviceMesh, deviceMeshFromGroups } from "../../../core/runtime/device-mesh.ts";

const DONE: Work = Object.freeze({ wait: () => Promise.resolve() });

/**
 * A rank's view of a group.
 *
 * @param part ranks of every group that `split` makes: those that the group would be cut into.
 */
function loneRank(rank: number, size: number, part: number): Collective {
  const refuse = (): never => {
    throw new StateError("A lone rank failed: it has no memory to share with ranks that do not exist");
  };
  return {
    name: "lone",
    rank,
    size,
    allGather: () => DONE,
    reduceScatter: () => DONE,
    allReduce: () => DONE,
    broadcast: () => DONE,
    barrier: () => DONE,
    share: refuse,
    window: refuse,
    split: async (_, key) => loneRank(key, part, part),
    abort: () => {},
    close: async () => {},
  };
}

/**
 * The mesh that one rank sees: all ranks in one dim, or replicas by shards in two.
 *
 * @param neighbours ranks of a run that keeps gathered parameters among them, see `reshardAfterForward`.
 */
export function loneMesh(rank: number, shape: readonly number[], neighbours = 1): DeviceMesh {
  const shard = shape.at(-1)!;
  const coordinates = shape.length === 1 ? [rank] : [Math.floor(rank / shard), rank % shard];
  const groups = shape.map((extent, dim) => loneRank(coordinates[dim]!, extent, neighbours));
  return deviceMeshFromGroups(groups);
}

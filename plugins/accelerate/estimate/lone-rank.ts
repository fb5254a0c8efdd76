/**
 * A group of any size of which one rank alone exists: its operations move nothing and end at once. What a rank allocates
 * and asks of the others does not depend on what they answer.
 *
 * @module
 */
import type { Collective, Work } from "../../../core/contracts/collective.ts";
import type { HostArray } from "../../../core/contracts/dtype.ts";
import { StateError } from "../../../core/contracts/errors.ts";
import { type DeviceMesh, deviceMeshFromGroups } from "../../../core/runtime/device-mesh.ts";
import type { Call } from "./communication.ts";

const DONE: Work = Object.freeze({ wait: () => Promise.resolve() });

/** A rank of a mesh that is otherwise empty. */
export interface LoneRankInit {
  readonly rank: number;
  /** Ranks in one dim, or replicas by shards. */
  readonly shape: readonly number[];
  /** Ranks of every group that is split off: of a run that keeps gathered parameters, see `reshardAfterForward`. */
  readonly neighbours?: number | undefined;
  /** Told of collectives on host memory; those on a counting device have no memory, and tell of themselves by unit events. */
  readonly heard?: ((call: Call) => void) | undefined;
}

/** The mesh that the rank sees. */
export function loneMesh({ rank, shape, neighbours = 1, heard = () => {} }: LoneRankInit): DeviceMesh {
  const shard = shape.at(-1)!;
  const coordinates = shape.length === 1 ? [rank] : [Math.floor(rank / shard), rank % shard];
  const options = { part: neighbours, heard };
  return deviceMeshFromGroups(shape.map((extent, dim) => loneRank(coordinates[dim]!, extent, options)));
}

/** A rank's view of a group. */
function loneRank(
  rank: number,
  size: number,
  options: { readonly part: number; readonly heard: (call: Call) => void },
): Collective {
  const note = (kind: Call["kind"], { byteLength }: HostArray): Work => {
    if (size > 1 && byteLength > 0) options.heard({ kind, ranks: size, bytes: byteLength });
    return DONE;
  };
  const refuse = (): never => {
    throw new StateError("A lone rank failed: it has no memory to share with ranks that do not exist");
  };
  return {
    name: "lone",
    rank,
    size,
    allGather: (_, input) => note("allGather", input),
    reduceScatter: (output) => note("reduceScatter", output),
    allReduce: (data) => note("allReduce", data),
    broadcast: () => DONE,
    barrier: () => DONE,
    share: refuse,
    window: refuse,
    split: async (_, key) => loneRank(key, options.part, options),
    abort: () => {},
    close: async () => {},
  };
}

/**
 * What a sharding strategy means: the ranks to cut over, the ranks to replicate over, and how long gathered parameters
 * stay.
 *
 * @module
 */
import type { Collective } from "../../core/contracts/collective.ts";
import { ConfigError } from "../../core/contracts/errors.ts";
import type { RankGroups } from "../../core/engine/rank-groups.ts";
import type { DeviceMesh } from "../../core/runtime/device-mesh.ts";
import { NAME, type ShardingStrategy } from "./options.ts";
import { soloGroup } from "./solo-group.ts";

/** Whether a strategy cuts inside groups of ranks and replicates across them. */
export function isHybrid(strategy: ShardingStrategy): boolean {
  return strategy === "HYBRID_SHARD" || strategy === "HYBRID_SHARD_ZERO2";
}

/** Whether gathered parameters are freed after forward; `undefined`: yes, but not in the root, whose backward comes next. */
export function reshardAfterForwardOf(strategy: ShardingStrategy): false | undefined {
  return strategy === "FULL_SHARD" || strategy === "HYBRID_SHARD" ? undefined : false;
}

/**
 * The ranks that a strategy works over.
 *
 * @throws ConfigError when mesh and groups are both given or both missing, or have not as many dims as the strategy.
 */
export function groupsOf(
  strategy: ShardingStrategy,
  mesh: DeviceMesh | undefined,
  processGroup: Collective | readonly [shard: Collective, replicate: Collective] | undefined,
): RankGroups {
  const groups = givenGroups(mesh, processGroup);
  if (isHybrid(strategy)) {
    const [shard, replicate] = groups;
    if (replicate !== undefined) return { group: shard, replicate };
    throw new ConfigError(
      `${NAME} failed: ${strategy} was given ranks in one dim, allowed are a mesh of two dims (to replicate over, to cut over) or processGroup [to cut over, to replicate over]`,
    );
  }
  const [world, second] = groups;
  if (second !== undefined) {
    throw new ConfigError(
      `${NAME} failed: ${strategy} was given ranks in two dims, allowed is one; HYBRID_SHARD and HYBRID_SHARD_ZERO2 take two`,
    );
  }
  return strategy === "NO_SHARD" && world.size > 1
    ? { group: soloGroup(world), replicate: world }
    : { group: world };
}

/** `[to cut over, to replicate over]`. */
function givenGroups(
  mesh: DeviceMesh | undefined,
  processGroup: Collective | readonly [Collective, Collective] | undefined,
): readonly [Collective, Collective?] {
  if ((mesh === undefined) === (processGroup === undefined)) {
    const given =
      mesh === undefined ? "neither mesh nor processGroup was" : "mesh and processGroup were both";
    throw new ConfigError(`${NAME} failed: ${given} given, give one of them`);
  }
  if (processGroup !== undefined) return isPair(processGroup) ? processGroup : [processGroup];
  if (mesh!.shape.length > 2) {
    throw new ConfigError(`${NAME} failed: a mesh of ${mesh!.shape.length} dims, allowed are 1 and 2`);
  }
  return mesh!.shape.length === 2 ? [mesh!.group(1), mesh!.group(0)] : [mesh!.group(0)];
}

function isPair(
  given: Collective | readonly [Collective, Collective],
): given is readonly [Collective, Collective] {
  return Array.isArray(given);
}

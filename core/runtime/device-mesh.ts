/**
 * DeviceMesh: the ranks of a job arranged in one or more named dimensions, as `torch.distributed.device_mesh`.
 *
 * @module
 */
import type { Collective } from "../contracts/collective.ts";
import { ConfigError } from "../contracts/errors.ts";

/** Ranks in a grid, seen by one of them. */
export interface DeviceMesh {
  /** Ranks along each dimension. */
  readonly shape: readonly number[];
  readonly dimNames: readonly string[];
  /** This rank's place along each dimension. */
  readonly coordinates: readonly number[];
  /** The ranks that differ from this one only along a dim, given by number or name. @throws ConfigError when there is no such dim. */
  group(dim: number | string): Collective;
}

/** Options of a mesh. */
export interface DeviceMeshOptions {
  /** One name for each dimension. Default `["shard"]`, `["replicate", "shard"]`, then `["dim0", ...]`. */
  readonly dimNames?: readonly string[];
}

/**
 * Arranges the ranks of `world` row-major in a grid. Collective over `world`.
 *
 * @param shape ranks along each dimension; their product is the world size. One dimension of all ranks by default.
 * @throws ConfigError when the product differs from the world size, or names and dimensions differ in number.
 */
export async function initDeviceMesh(
  world: Collective,
  shape: readonly number[] = [world.size],
  options: DeviceMeshOptions = {},
): Promise<DeviceMesh> {
  const product = shape.reduce((n, extent) => n * extent, 1);
  if (
    shape.length === 0 ||
    product !== world.size ||
    shape.some((extent) => !Number.isInteger(extent) || extent < 1)
  ) {
    throw new ConfigError(
      `Device mesh failed: shape [${shape.join(", ")}] for ${world.size} ranks, its product must be that`,
    );
  }
  const dimNames = namesOf(shape.length, options);
  const coordinates = new Array<number>(shape.length);
  let rest = world.rank;
  for (let d = shape.length - 1; d >= 0; d--) {
    coordinates[d] = rest % shape[d]!;
    rest = Math.floor(rest / shape[d]!);
  }
  const groups: Collective[] = [];
  for (const [d, extent] of shape.entries()) {
    if (extent === world.size) {
      groups.push(world);
      continue;
    }
    // Ranks of one line share every coordinate but this one.
    const color = coordinates.reduce((sum, at, i) => (i === d ? sum : sum * shape[i]! + at), 0);
    groups.push(await world.split(color, coordinates[d]!));
  }
  return meshOf(groups, dimNames);
}

/**
 * A mesh of groups that there are already: of every dimension the one that this rank is in, its rank in it being its place.
 *
 * @throws ConfigError without groups, or when names and dimensions differ in number.
 */
export function deviceMeshFromGroups(
  groups: readonly Collective[],
  options: DeviceMeshOptions = {},
): DeviceMesh {
  if (groups.length === 0) throw new ConfigError("Device mesh failed: no groups, give one for each dim");
  return meshOf(groups, namesOf(groups.length, options));
}

function meshOf(groups: readonly Collective[], dimNames: readonly string[]): DeviceMesh {
  return Object.freeze({
    shape: groups.map(({ size }) => size),
    dimNames: [...dimNames],
    coordinates: groups.map(({ rank }) => rank),
    group: (dim: number | string) => {
      const group = groups[typeof dim === "string" ? dimNames.indexOf(dim) : dim];
      if (group !== undefined) return group;
      const named = typeof dim === "string" ? `"${dim}"` : dim;
      throw new ConfigError(
        `Device mesh has no dim ${named}: it has ${groups.length}, named "${dimNames.join('", "')}"`,
      );
    },
  });
}

const DEFAULT_NAMES: readonly (readonly string[])[] = [[], ["shard"], ["replicate", "shard"]];

function namesOf(dims: number, { dimNames }: DeviceMeshOptions): readonly string[] {
  const names = dimNames ?? DEFAULT_NAMES[dims] ?? Array.from({ length: dims }, (_, d) => `dim${d}`);
  if (names.length === dims && new Set(names).size === dims) return names;
  throw new ConfigError(`Device mesh failed: dim names ${names.join(", ")} for ${dims} dims, give one each`);
}

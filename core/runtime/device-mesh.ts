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
  /** The ranks that differ from this one only along `dim`. */
  group(dim: number): Collective;
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
  options: { readonly dimNames?: readonly string[] } = {},
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
  const dimNames = options.dimNames ?? (shape.length === 1 ? ["shard"] : shape.map((_, d) => `dim${d}`));
  if (dimNames.length !== shape.length || new Set(dimNames).size !== dimNames.length) {
    throw new ConfigError(
      `Device mesh failed: dim names ${dimNames.join(", ")} for ${shape.length} dims, give one each`,
    );
  }
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
  return Object.freeze({
    shape: [...shape],
    dimNames: [...dimNames],
    coordinates,
    group: (dim: number) => {
      const group = groups[dim];
      if (group === undefined) throw new ConfigError(`Device mesh has no dim ${dim}: it has ${shape.length}`);
      return group;
    },
  });
}

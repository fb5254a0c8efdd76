/**
 * FSDP2's layout: every parameter is cut on one of its dims, by itself; the first unless another is asked for.
 *
 * As `torch.chunk`: ceil(extent / ranks) a rank, in order; the last ranks may hold less, or nothing. In a rank's flat
 * shard the parameters follow each other, each padded to the size of a full chunk (`padded_sharded_size` of PyTorch's
 * FSDPParam), so that all ranks' shards are equally long.
 *
 * @module
 */
import { ShapeError } from "../../core/contracts/errors.ts";
import type { ParameterSpec, Shard, ShardFactory, ShardPiece } from "../../core/contracts/shard.ts";
import { numelOf } from "../../core/tensor/shape.ts";

const factories = new Map<number, ShardFactory>();

/**
 * The layout that cuts on `dim`, 0 or more; one and the same function for one dim. Unlike PyTorch's it need not divide
 * evenly on any dim.
 */
export function dimShard(dim: number): ShardFactory {
  const factory = factories.get(dim) ?? ((parameters, worldSize) => cutOn(dim, parameters, worldSize));
  factories.set(dim, factory);
  return factory;
}

/** The layout that cuts on the first dim. @throws ShapeError for a parameter without dims. */
export const dim0Shard: ShardFactory = dimShard(0);

function cutOn(dim: number, parameters: readonly ParameterSpec[], worldSize: number): Shard {
  const starts: number[] = [];
  let shardNumel = 0;
  for (const { name, shape } of parameters) {
    const extent = shape[dim];
    if (shape.length === 0) {
      throw new ShapeError(`Sharding parameter "${name}" failed: it has no dims, give it shape [1] instead`);
    }
    if (extent === undefined) {
      throw new ShapeError(
        `Sharding parameter "${name}" failed: dim ${dim} of ${shape.length}, allowed are 0 to ${shape.length - 1}`,
      );
    }
    starts.push(shardNumel);
    shardNumel += numelOf(shape.with(dim, Math.ceil(extent / worldSize)));
  }
  const rangeOf = (parameter: number, rank: number) => {
    const extent = parameters[parameter]!.shape[dim]!;
    const chunk = Math.ceil(extent / worldSize);
    const begin = Math.min(rank * chunk, extent);
    return { begin, count: Math.min(begin + chunk, extent) - begin };
  };
  return Object.freeze({
    parameters,
    worldSize,
    shardNumel,
    pieces: (rank: number): ShardPiece[] =>
      parameters.flatMap(({ shape }, parameter) => {
        const { begin, count } = rangeOf(parameter, rank);
        if (count === 0) return [];
        const offsets = shape.map((_, d) => (d === dim ? begin : 0));
        return [{ parameter, offsets, sizes: shape.with(dim, count), shardOffset: starts[parameter]! }];
      }),
    localShape: (parameter: number, rank: number) =>
      parameters[parameter]!.shape.with(dim, rangeOf(parameter, rank).count),
  });
}

/**
 * FSDP2's layout: every parameter is cut on its first dim by itself.
 *
 * As `torch.chunk`: ceil(rows / ranks) rows a rank, in order; the last ranks may hold fewer, or none. In a rank's flat
 * shard the parameters follow each other, each padded to the size of a full chunk (fsdp.md of PyTorch's FSDPParam:
 * `padded_sharded_size`), so that all ranks' shards are equally long.
 *
 * @module
 */
import { ShapeError } from "../../core/contracts/errors.ts";
import type { ParameterSpec, Shard, ShardPiece } from "../../core/contracts/shard.ts";

/**
 * The layout of `parameters` over `worldSize` ranks.
 *
 * @throws ShapeError for a parameter without dims.
 */
export function dim0Shard(parameters: readonly ParameterSpec[], worldSize: number): Shard {
  const starts: number[] = [];
  let shardNumel = 0;
  for (const { name, shape } of parameters) {
    const rows = shape[0];
    if (rows === undefined) {
      throw new ShapeError(`Sharding parameter "${name}" failed: it has no dims, give it shape [1] instead`);
    }
    starts.push(shardNumel);
    shardNumel += Math.ceil(rows / worldSize) * rowNumel(shape);
  }
  const rowsOf = (parameter: number, rank: number) => {
    const rows = parameters[parameter]!.shape[0]!;
    const chunk = Math.ceil(rows / worldSize);
    const begin = Math.min(rank * chunk, rows);
    return { begin, count: Math.min(begin + chunk, rows) - begin };
  };
  return Object.freeze({
    parameters,
    worldSize,
    shardNumel,
    pieces: (rank: number): ShardPiece[] =>
      parameters.flatMap(({ shape }, parameter) => {
        const { begin, count } = rowsOf(parameter, rank);
        if (count === 0) return [];
        const offsets = shape.map((_, d) => (d === 0 ? begin : 0));
        return [{ parameter, offsets, sizes: shape.with(0, count), shardOffset: starts[parameter]! }];
      }),
    localShape: (parameter: number, rank: number) =>
      parameters[parameter]!.shape.with(0, rowsOf(parameter, rank).count),
  });
}

function rowNumel(shape: readonly number[]): number {
  return shape.slice(1).reduce((n, extent) => n * extent, 1);
}

/**
 * A version of FSDP by a third party: every matrix is cut on its last dim, and vectors on their only one. It has an option
 * of its own.
 *
 *     fsdp train ... --plugin ./last-dim-sharding.ts --fsdp-version last-dim --fsdp-options min-columns=8
 */
import {
  ConfigError,
  modulesToWrap,
  type ParameterSpec,
  type Plugin,
  SHARDING,
  type Shard,
  type ShardFactory,
  type ShardPiece,
  shardModule,
} from "../../../mod.ts";

/** The layout in which matrices of fewer columns are cut on their rows. */
function lastDimLayout(minColumns: number): ShardFactory {
  return (parameters: readonly ParameterSpec[], worldSize: number): Shard => {
    const cuts = parameters.map(({ shape }) => {
      const dim = shape.at(-1)! >= minColumns ? shape.length - 1 : 0;
      const extent = shape[dim]!;
      // Elements for each index of the dim that is cut.
      const slice = shape.reduce((product, size, d) => (d === dim ? product : product * size), 1);
      return { dim, extent, slice, chunk: Math.ceil(extent / worldSize) };
    });
    const starts: number[] = [];
    let shardNumel = 0;
    for (const { slice, chunk } of cuts) {
      starts.push(shardNumel);
      shardNumel += slice * chunk;
    }
    const range = (parameter: number, rank: number) => {
      const { chunk, extent } = cuts[parameter]!;
      const begin = Math.min(rank * chunk, extent);
      return { begin, count: Math.min(begin + chunk, extent) - begin };
    };
    return {
      parameters,
      worldSize,
      shardNumel,
      pieces: (rank): ShardPiece[] =>
        parameters.flatMap(({ shape }, parameter) => {
          const { begin, count } = range(parameter, rank);
          if (count === 0) return [];
          const { dim } = cuts[parameter]!;
          const offsets = shape.map((_, d) => (d === dim ? begin : 0));
          return [{ parameter, offsets, sizes: shape.with(dim, count), shardOffset: starts[parameter]! }];
        }),
      localShape: (parameter, rank) =>
        parameters[parameter]!.shape.with(cuts[parameter]!.dim, range(parameter, rank).count),
    };
  };
}

const plugin: Plugin = {
  name: "last-dim-sharding",
  contract: 1,
  setup(registry) {
    registry.register(SHARDING, "last-dim", {
      options: {
        "min-columns": {
          type: "integer",
          min: 1,
          default: 1,
          description: "matrices of fewer columns are cut on their rows",
        },
      },
      shard(model, { mesh, wrap, reshardAfterForward, forwardPrefetch, precision, settings }) {
        if (mesh.shape.length !== 1) {
          throw new ConfigError(
            `cannot shard on last dims: a mesh of ${mesh.shape.length} dims, allowed is 1`,
          );
        }
        const layout = lastDimLayout(Number(settings?.["min-columns"]));
        const options = { layout, group: mesh.group(0), reshardAfterForward, forwardPrefetch, precision };
        for (const module of [...modulesToWrap(model, wrap), model]) shardModule(module, options);
      },
    });
  },
};

export default plugin;

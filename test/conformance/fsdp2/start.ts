/** First values (TestFullyShardMetaDeviceInit, ShardedParameterTensor, ProcessGroupInit, ShardPlacementFn). */
import { describe, expect, test } from "bun:test";
import type { ModelSpec } from "./programs/models.ts";
import { type StartedParameter, type StartSpec, start } from "./programs/start.ts";
import type { Subject } from "./subject.ts";

const MODELS: readonly ModelSpec[] = [
  { kind: "pair", extents: [8, 3, 1] },
  { kind: "stack", layers: 1 },
  { kind: "tied", rows: 17 },
];

/** A rank's part of a parameter that is cut on `dim` as `torch.chunk` cuts. */
function chunk({ shape, whole }: StartedParameter, dim: number, worldSize: number, rank: number) {
  const extent = shape[dim]!;
  const size = Math.ceil(extent / worldSize);
  const begin = Math.min(rank * size, extent);
  const count = Math.min(begin + size, extent) - begin;
  const inner = shape.slice(dim + 1).reduce((n, each) => n * each, 1);
  const values = whole.filter((_, i) => {
    const at = Math.floor(i / inner) % extent;
    return at >= begin && at < begin + count;
  });
  return { shape: shape.with(dim, count), values };
}

/** Registers the tests. */
export function starting(subject: Subject): void {
  const { worlds, thorough, timeout } = subject;

  describe("first values", () => {
    for (const worldSize of worlds) {
      test(
        `are those of the whole model, each rank holding its chunks, however they came, on ${worldSize} ranks`,
        async () => {
          const ways: readonly Omit<StartSpec, "model">[] = [
            { how: "before" },
            { how: "after" },
            { how: "rank0" },
            { how: "groups" },
            { how: "before", sharding: { largestDim: true } },
          ];
          const check = async (model: ModelSpec, way: (typeof ways)[number]): Promise<void> => {
            const [[whole], results] = await Promise.all([
              subject.run(worldSize, start, { model, how: "whole" }),
              subject.run(worldSize, start, { model, ...way }),
            ]);
            for (const [rank, parameters] of results.entries()) {
              for (const [p, { name, whole: values, local }] of parameters.entries()) {
                const what = JSON.stringify({ model, way, rank, name });
                const reference = whole![p]!;
                expect({ name, values }, what).toEqual({ name: reference.name, values: reference.whole });
                const { shape } = reference;
                const dim = way.sharding?.largestDim === true ? shape.indexOf(Math.max(...shape)) : 0;
                expect(local, what).toEqual(chunk(reference, dim, worldSize, rank));
              }
              expect(parameters.length).toBe(whole!.length);
            }
          };
          const models = thorough ? MODELS : MODELS.slice(0, 1);
          await Promise.all(models.flatMap((model) => ways.map((way) => check(model, way))));
        },
        timeout,
      );
    }
  });
}

/** State dicts (TestFullyShardStateDictMultiProcess, MultiThread). */
import { describe, expect, test } from "bun:test";
import { expectCloseNamed } from "./compare.ts";
import type { ModelSpec, ShardSpec } from "./programs/models.ts";
import { exchangeState, type StateSpec } from "./programs/state.ts";
import type { Subject } from "./subject.ts";

/** Extents at, below and above the ranks. */
const MODELS: readonly ModelSpec[] = [2, 3, 4, 5].map((extent) => ({
  kind: "pair",
  extents: [extent, extent, extent],
}));

/** Registers the tests. */
export function stateDicts(subject: Subject): void {
  const { worlds, thorough, exact, timeout } = subject;
  describe("state dicts", () => {
    for (const worldSize of worlds) {
      test(
        `carry a model and its optimizer over, box by box or whole, from all ranks or the first, on ${worldSize} ranks`,
        async () => {
          const others: readonly ShardSpec[] = worldSize === 4 ? [{ mesh: [2, 2] }] : [{ groups: "layers" }];
          const ways: readonly Omit<StateSpec, "model">[] = [
            { how: "sharded", from: {}, to: {} },
            ...others.flatMap((to) => [
              { how: "full" as const, from: {}, to },
              { how: "rank0" as const, from: to, to: {} },
            ]),
          ];
          const check = async (model: ModelSpec, way: (typeof ways)[number]): Promise<void> => {
            const results = await subject.run(worldSize, exchangeState, { model, ...way });
            for (const [rank, found] of results.entries()) {
              const what = JSON.stringify({ model, way, rank });
              expect(found.calls, what).toEqual([]);
              expect(found.shown, what).toEqual(found.updated);
              expect(found.onThisRank, what).toBe(rank === 0 ? Object.keys(found.saved).length : 0);
              expect(found.saved, what).toEqual(results[0]!.saved);
              expect(found.loaded, what).toEqual(found.saved);
              const [one, two] = found.next;
              expect(one, what).not.toEqual(found.saved);
              // Replicas add up in another order.
              const same = exact && way.from.mesh === undefined && way.to.mesh === undefined;
              if (same) expect(two, what).toEqual(one);
              else expectCloseNamed(two, one, what);
            }
          };
          const models = thorough ? MODELS : MODELS.slice(1, 2);
          await Promise.all(models.flatMap((model) => ways.map((way) => check(model, way))));
        },
        timeout,
      );
    }
  });
}

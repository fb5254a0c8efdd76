/** A sharded model trains as replicas do (test_fully_shard_training.py, 1DTrainingCore, SharedParams, HSDP, Compose). */
import { describe, test } from "bun:test";
import { expectTrainedAlike } from "./compare.ts";
import type { ModelSpec, ShardSpec } from "./programs/models.ts";
import { type Trained, type TrainSpec, train } from "./programs/training.ts";
import type { Subject } from "./subject.ts";

const STACK: ModelSpec = { kind: "stack" };

/** Extents of two layers: even, uneven, and fewer rows than ranks. */
const EXTENTS: readonly (readonly [number, number, number])[] = [
  [16, 15, 8],
  [7, 15, 3],
  [16, 17, 8],
];

/** Ways to shard over `worldSize` ranks. */
function shardings(worldSize: number): readonly ShardSpec[] {
  const divisor = [2, 3].find((k) => worldSize % k === 0) ?? 1;
  return [
    {},
    { reshardAfterForward: false },
    { reshardAfterForward: divisor },
    { reshardAfterForward: true, forwardPrefetch: true },
    { groups: "one" },
    { groups: "layers", ahead: 2 },
    { groups: "lists", maxReductions: 3 },
    { largestDim: true },
    { checkpointed: "layers" },
    { checkpointed: "blocks", groups: "layers" },
    { checkpointed: "model" },
    { offload: true },
  ];
}

/** Meshes of replicas and shards. */
const GRIDS = [
  [1, 2],
  [2, 1],
  [2, 2],
];

/** Registers the tests. */
export function parity(subject: Subject): void {
  const { worlds, largeWorlds, several, exact, thorough, timeout } = subject;
  const references = new Map<string, Promise<Trained>>();
  const replicated = (worldSize: number, model: ModelSpec): Promise<Trained> => {
    const key = JSON.stringify([worldSize, model]);
    const known = references.get(key) ?? subject.run(worldSize, train, { model }).then(([first]) => first!);
    references.set(key, known);
    return known;
  };
  const compare = async (worldSize: number, model: ModelSpec, sharding: ShardSpec): Promise<void> => {
    const run = subject.run(worldSize, train, { model, sharding });
    const [reference, results] = await Promise.all([replicated(worldSize, model), run]);
    // Replicas add up in two steps, and a device that offloads updates elsewhere.
    const same = exact && sharding.mesh === undefined && sharding.offload !== true;
    expectTrainedAlike(results, reference, JSON.stringify({ worldSize, model, sharding }), same);
  };

  /** The same with replicas and with each of some ways to shard. */
  const compareAll = async (worldSize: number, specs: readonly TrainSpec[]): Promise<void> => {
    const check = async (spec: TrainSpec): Promise<void> => {
      const { sharding: _, ...whole } = spec;
      const [[reference], results] = await Promise.all([
        subject.run(worldSize, train, whole),
        subject.run(worldSize, train, spec),
      ]);
      expectTrainedAlike(results, reference!, JSON.stringify({ worldSize, ...spec }), exact);
    };
    await Promise.all(specs.map(check));
  };

  describe("training", () => {
    for (const worldSize of worlds) {
      test(
        `is that of replicas, whatever is freed, grouped, gathered ahead or computed again, on ${worldSize} ranks`,
        async () => {
          const specs = shardings(worldSize);
          const chosen = thorough ? specs : [{ reshardAfterForward: true, forwardPrefetch: true }];
          await Promise.all(chosen.map((sharding) => compare(worldSize, STACK, sharding)));
        },
        timeout,
      );
    }

    for (const worldSize of [...several, ...largeWorlds]) {
      test(
        `is that of replicas with extents of any size, some ranks holding nothing, on ${worldSize} ranks`,
        async () => {
          const first = (thorough ? EXTENTS : EXTENTS.slice(1, 2)).map((extents) =>
            compare(worldSize, { kind: "pair", extents }, { groups: "layers" }),
          );
          const largest = compare(worldSize, { kind: "pair", extents: [32, 16, 8] }, { largestDim: true });
          await Promise.all([...first, largest]);
        },
        timeout,
      );

      test(
        `of a table that is embedding and output is that of replicas, in every row, on ${worldSize} ranks`,
        async () => {
          const model: ModelSpec = { kind: "tied", rows: 4 * worldSize + 1 };
          const specs: readonly ShardSpec[] = [
            {},
            { groups: "one", reshardAfterForward: true },
            { groups: "lists", checkpointed: "blocks" },
          ];
          const chosen = thorough ? specs : specs.slice(0, 1);
          await Promise.all(chosen.map((sharding) => compare(worldSize, model, sharding)));
        },
        timeout,
      );
    }

    for (const worldSize of worlds) {
      test(
        `with frozen parameters, other ones in every step, is that of replicas on ${worldSize} ranks`,
        async () => {
          const frozen = ["bias$", "^blocks\\.1|^inner", "weight$", "$none"];
          const shardings = thorough ? [{}, { groups: "lists" }, { groups: "one" }] : [{}];
          const specs = shardings.map((sharding) => ({ model: STACK, sharding, frozen }) as TrainSpec);
          await compareAll(worldSize, specs);
        },
        timeout,
      );

      test(
        `goes on after a pass that failed, and after all was gathered by hand, on ${worldSize} ranks`,
        async () => {
          const of = (more: Partial<TrainSpec>): TrainSpec => ({
            model: STACK,
            sharding: {},
            steps: 3,
            ...more,
          });
          await compareAll(worldSize, [
            of({ failing: { step: 1, where: "forward" } }),
            of({ failing: { step: 1, where: "backward" } }),
            of({ gathering: "before forward", sharding: { reshardAfterForward: true } }),
            of({ gathering: "before update" }),
          ]);
        },
        timeout,
      );
    }

    for (const mesh of GRIDS.filter(([r, s]) => worlds.includes(r! * s!))) {
      test(
        `is that of replicas on a mesh of ${mesh.join(" x ")}`,
        async () => {
          const worldSize = mesh[0]! * mesh[1]!;
          const specs: readonly ShardSpec[] = [
            { mesh },
            { mesh, checkpointed: "blocks", reshardAfterForward: false },
            { mesh, offload: true, groups: "lists" },
          ];
          const chosen = thorough ? specs : specs.slice(0, 1);
          await Promise.all(chosen.map((sharding) => compare(worldSize, STACK, sharding)));
        },
        timeout,
      );
    }
  });
}

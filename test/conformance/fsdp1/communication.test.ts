/** PyTorch's test_fsdp_comm, test_fsdp_hybrid_shard and test_fsdp_backward_prefetch: what is communicated, and when. */
import { describe, expect, test } from "bun:test";
import { traceUnits } from "../../../core/engine/trace.ts";
import type { UnitEvent } from "../../../core/engine/unit-events.ts";
import { flatParameterHandles, type ShardingStrategy } from "../../../plugins/fsdp1/mod.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import { type Options, pass, sharded } from "./harness.ts";

/** Units of the model: the root's and two blocks'. */
const UNITS = 3;

/** Collectives of one forward and one backward pass. */
interface Counts {
  readonly forward: readonly [allGather: number, reduceScatter: number, allReduce: number];
  readonly backward: readonly [allGather: number, reduceScatter: number, allReduce: number];
}

/** The events of each pass over a batch: two without synchronisation first if `accumulate`. */
async function eventsOf(rank: TestRank, options: Options, accumulate = false) {
  const fsdp = await sharded(rank, options);
  const passes: UnitEvent[][] = [];
  const one = async (): Promise<void> => {
    const events: UnitEvent[] = [];
    const end = traceUnits(fsdp, (event) => events.push(event));
    await pass(rank, fsdp, passes.length);
    end();
    passes.push(events);
  };
  if (accumulate) {
    await fsdp.noSync(async () => {
      await one();
      await one();
    });
  }
  await one();
  return { fsdp, passes };
}

/** Whatever comes after the last unit's forward began is the backward pass's. */
function counted(events: readonly UnitEvent[]): Counts {
  const count = (kind: UnitEvent["kind"], part: readonly UnitEvent[]) =>
    part.filter((event) => event.kind === kind).length;
  const all = (part: readonly UnitEvent[]) =>
    [count("allGather", part), count("reduceScatter", part), count("allReduce", part)] as const;
  const units = new Set<string>();
  let at = 0;
  for (; at < events.length && units.size < UNITS; at++) {
    const event = events[at]!;
    if (event.kind === "unshard") units.add(event.unit);
  }
  const begun = events[at]?.kind === "allGather" ? at + 1 : at;
  return { forward: all(events.slice(0, begun)), backward: all(events.slice(begun)) };
}

describe("a step's collectives", () => {
  const table: readonly [ShardingStrategy, Counts][] = [
    ["FULL_SHARD", { forward: [UNITS, 0, 0], backward: [UNITS - 1, UNITS, 0] }],
    ["SHARD_GRAD_OP", { forward: [UNITS, 0, 0], backward: [0, UNITS, 0] }],
    ["NO_SHARD", { forward: [0, 0, 0], backward: [0, 0, UNITS] }],
    ["HYBRID_SHARD", { forward: [UNITS, 0, 0], backward: [UNITS - 1, UNITS, UNITS] }],
    ["HYBRID_SHARD_ZERO2", { forward: [UNITS, 0, 0], backward: [0, UNITS, UNITS] }],
  ];
  for (const [shardingStrategy, expected] of table) {
    test(`are PyTorch's with ${shardingStrategy}`, async () => {
      for (const { passes } of await runRanks(4, (rank) => eventsOf(rank, { shardingStrategy }))) {
        expect(passes.map(counted)).toEqual([expected]);
      }
    });
  }

  test("reduce nothing inside noSync, and gather no more what stayed gathered there", async () => {
    const count = async (shardingStrategy: ShardingStrategy) => {
      const [result] = await runRanks(2, (rank) => eventsOf(rank, { shardingStrategy }, true));
      return result!.passes.map((events) => {
        const of = (kind: UnitEvent["kind"]) => events.filter((event) => event.kind === kind).length;
        return [of("allGather"), of("reduceScatter")];
      });
    };
    // Forward and backward: the root stays after its first forward.
    const rest = UNITS - 1 + UNITS - 1;
    expect(await count("FULL_SHARD")).toEqual([
      [UNITS + UNITS - 1, 0],
      [rest, 0],
      [rest, UNITS],
    ]);
    expect(await count("SHARD_GRAD_OP")).toEqual([
      [UNITS, 0],
      [0, 0],
      [0, UNITS],
    ]);
    expect(await count("NO_SHARD")).toEqual([
      [0, 0],
      [0, 0],
      [0, 0],
    ]);
  });

  test("carry each unit's whole flat parameter, cut into equal shards", async () => {
    for (const useOrigParams of [true, false]) {
      for (const worldSize of [2, 3, 4]) {
        const [result] = await runRanks(worldSize, (rank) => eventsOf(rank, { useOrigParams }));
        const { fsdp, passes } = result!;
        const handles = flatParameterHandles(fsdp);
        expect(handles.map(({ module }) => module)).toEqual(["", "blocks.0", "blocks.1"]);
        for (const { module, numel, paddingNumel, shardNumel } of handles) {
          expect(shardNumel).toBe(Math.ceil(numel / worldSize));
          if (!useOrigParams) expect(paddingNumel).toBe(0);
          const sent = passes[0]!.flatMap((event) =>
            "numel" in event && event.unit === module ? [[event.kind, event.numel, event.ranks]] : [],
          );
          expect(sent).toContainEqual(["allGather", shardNumel, worldSize]);
          // Padding need not travel with gradients.
          const [, reduced] = sent.find(([kind]) => kind === "reduceScatter")! as [string, number];
          expect(reduced).toBeGreaterThanOrEqual(numel - paddingNumel);
          expect(reduced).toBeLessThanOrEqual(shardNumel * worldSize);
        }
      }
    }
  });

  test("are none on one rank", async () => {
    for (const shardingStrategy of ["FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD"] as const) {
      const [calls] = await runRanks(1, async (rank) => {
        await eventsOf(rank, { shardingStrategy });
        return rank.calls;
      });
      expect(calls).toEqual([]);
    }
  });

  test("sum, and leave division to before and after, as FSDP1 divides", async () => {
    const [result] = await runRanks(4, (rank) => eventsOf(rank, { shardingStrategy: "HYBRID_SHARD" }));
    const ops = result!.passes[0]!.flatMap((event) => ("op" in event ? [event.op] : []));
    expect(new Set(ops)).toEqual(new Set(["sum"]));
  });
});

describe("what a step gathers ahead", () => {
  const orderOf = async (options: Options): Promise<string[]> => {
    const [events] = await runRanks(2, async (rank) => {
      const fsdp = await sharded(rank, options);
      // The order of the first pass is what is gathered ahead in the second.
      await pass(rank, fsdp, 0);
      const seen: string[] = [];
      const letters = { unshard: "U", reshard: "R", postBackward: "P" } as const;
      traceUnits(fsdp, ({ kind, unit }) => {
        if (kind === "unshard" || kind === "reshard" || kind === "postBackward") {
          seen.push(`${letters[kind]}${unit === "" ? "root" : unit.slice(-1)}`);
        }
      });
      await pass(rank, fsdp, 1);
      return seen;
    });
    return events!;
  };
  const forward = ["Uroot", "U0", "R0", "U1", "R1"];

  test("is the next unit before this one's gradients with BACKWARD_PRE, after them otherwise", async () => {
    const root = ["Rroot", "Proot"];
    expect(await orderOf({ backwardPrefetch: "BACKWARD_PRE" })).toEqual([
      ...forward,
      ...["U1", "U0", "R1", "P1", "R0", "P0", ...root],
    ]);
    const later = [...forward, "U1", "R1", "P1", "U0", "R0", "P0", ...root];
    expect(await orderOf({ backwardPrefetch: "BACKWARD_POST" })).toEqual(later);
    expect(await orderOf({ backwardPrefetch: "NO_PREFETCH" })).toEqual(later);
  });

  test("is the next unit of the pass before while one's forward computes with forwardPrefetch", async () => {
    const events = await orderOf({ forwardPrefetch: true });
    expect(events.slice(0, 5)).toEqual(["Uroot", "U0", "U1", "R0", "R1"]);
  });

  test("never makes more than two gathers be under way", async () => {
    const [most] = await runRanks(2, async (rank) => {
      const fsdp = await sharded(rank, { forwardPrefetch: true });
      let ahead = 0;
      let worst = 0;
      for (let step = 0; step < 3; step++) {
        traceUnits(fsdp, ({ kind }) => {
          if (kind === "unshard") worst = Math.max(worst, ++ahead);
          if (kind === "reshard") ahead--;
        });
        await pass(rank, fsdp, step);
      }
      return worst;
    });
    // The root, the unit that computes and the one that is next.
    expect(most).toBeLessThanOrEqual(3);
  });
});

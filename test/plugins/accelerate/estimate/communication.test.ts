import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { registry } from "../../../../mod.ts";
import {
  bytesSent,
  type Call,
  callTime,
  type Link,
  stepTime,
} from "../../../../plugins/accelerate/estimate/communication.ts";
import { dryRun } from "../../../../plugins/accelerate/estimate/dry-run.ts";
import { chooseModel } from "../../../../plugins/accelerate/estimate/model-choice.ts";
import type { Strategy } from "../../../../plugins/accelerate/estimate/strategies.ts";

const LINK: Link = { latency: 1, bandwidth: 1000 };
const gather: Call = { kind: "allGather", unit: 0, ranks: 4, bytes: 1000 };
const reduce: Call = { kind: "allReduce", unit: 0, ranks: 4, bytes: 4000 };

describe("a collective's time", () => {
  test("is latency by rounds, and what must be sent by bandwidth", () => {
    expect(callTime(gather, LINK, "ring")).toBe(3 + 3);
    expect(callTime(gather, LINK, "tree")).toBe(2 + 3);
    expect(callTime({ ...gather, kind: "reduceScatter" }, LINK, "ring")).toBe(3 + 3);
    // A reduce-scatter and an all-gather.
    expect(callTime(reduce, LINK, "ring")).toBe(6 + 6);
    expect(callTime(reduce, LINK, "tree")).toBe(4 + 6);
  });

  test("is nothing for one rank, and never longer on a tree than on a ring", () => {
    const calls = fc.record({
      kind: fc.constantFrom<Call["kind"]>("allGather", "reduceScatter", "allReduce"),
      unit: fc.constant(0),
      ranks: fc.integer({ min: 1, max: 16_384 }),
      bytes: fc.nat(),
    });
    fc.assert(
      fc.property(calls, (call) => {
        expect(callTime(call, LINK, "tree")).toBeLessThanOrEqual(callTime(call, LINK, "ring"));
        expect(callTime({ ...call, ranks: 1 }, LINK, "ring")).toBe(0);
      }),
    );
  });

  test("is that of the link it goes over: replicas are on different nodes, shards of a node within one", () => {
    const network = {
      withinNode: { latency: 0, bandwidth: 1000 },
      betweenNodes: { latency: 0, bandwidth: 1 },
    };
    const world = { worldSize: 8, ranksPerNode: 4 };
    expect(stepTime([gather], world, network, "ring")).toBe(3);
    expect(stepTime([{ ...gather, ranks: 8 }], world, network, "ring")).toBe(7000);
    expect(stepTime([{ ...reduce, ranks: 2 }], world, network, "ring")).toBe(4000);
    expect(stepTime([{ ...reduce, ranks: 4 }], { ...world, worldSize: 4 }, network, "ring")).toBe(6);
  });
});

describe("a step", () => {
  const workload = { batchSize: 1, seqLen: 1, optimizer: "adamw", momentum: 0 } as const;
  /** Bytes that a rank sends, over bytes of all parameters. */
  async function sent(strategy: Omit<Strategy, "name">, worldSize = 8): Promise<number> {
    // Every extent is a multiple of the ranks: nothing is padded.
    const model = await chooseModel(registry, "gpt2-bytes");
    const world = { worldSize, ranksPerNode: 2 };
    const { calls } = await dryRun({ registry, model, world, strategy: { name: "", ...strategy } }, workload);
    return calls.reduce((sum, call) => sum + bytesSent(call), 0) / (4 * 842_496);
  }
  const others = 7 / 8;
  /** Embeddings and last norm: gathered once a step, where blocks are gathered twice. */
  const root = (256 * 128 + 128 * 128 + 2 * 128) / 842_496;

  test("sends twice the parameters without resharding, three times with it, as DDP does twice", async () => {
    expect(await sent({ version: "fsdp1", shardingStrategy: "NO_SHARD" })).toBeCloseTo(2 * others, 9);
    expect(await sent({ version: "fsdp1", shardingStrategy: "SHARD_GRAD_OP" })).toBeCloseTo(2 * others, 9);
    expect(await sent({ version: "fsdp1", shardingStrategy: "FULL_SHARD" })).toBeCloseTo(
      (3 - root) * others,
      9,
    );
    expect(await sent({ version: "fsdp2", reshardAfterForward: false })).toBeCloseTo(2 * others, 9);
    expect(await sent({ version: "fsdp2" })).toBeCloseTo((3 - root) * others, 9);
  });

  test("sends half as much in 16 bits, and nothing on one rank", async () => {
    expect(await sent({ version: "fsdp2", precision: "bf16" })).toBeCloseTo(((3 - root) * others) / 2, 9);
    expect(await sent({ version: "fsdp2" }, 1)).toBe(0);
  });

  test("sends within a node what shards of a node need, and its part of the gradients to the replicas", async () => {
    // Halves of the parameters in three gathers and reductions, and all-reduced by four.
    const wanted = (3 - root) * (1 / 2) + (1 / 2) * 2 * (3 / 4);
    expect(await sent({ version: "fsdp2", hybrid: true })).toBeCloseTo(wanted, 9);
    expect(await sent({ version: "fsdp1", shardingStrategy: "HYBRID_SHARD", hybrid: true })).toBeCloseTo(
      wanted,
      9,
    );
  });

  test("gathers again from the neighbours that kept the parameters", async () => {
    // One of two neighbours sends its half; the root is asked for it too.
    const wanted = 2 * others + 1 / 2;
    expect(await sent({ version: "fsdp2", reshardAfterForward: "node" })).toBeCloseTo(wanted, 9);
  });
});

/**
 * What is gathered and reduced, how often and in which order (test_fully_shard_comm.py: TestFullyShardCommunication,
 * TestFullyShardPrefetch; TestFullyShardWorldSize1).
 */
import { describe, expect, test } from "bun:test";
import { type EventsSpec, events, type PassEvents } from "./programs/events.ts";
import type { ShardSpec } from "./programs/models.ts";
import type { Subject } from "./subject.ts";

const LAYERS = 3;
const GROUPS = LAYERS + 1;

const count = ({ collectives }: PassEvents, kind: string): number =>
  collectives.filter((event) => event.kind === kind).length;

/** Replicas are asked when a reduction in the shard group has arrived, beside whatever the program does then. */
function replicasLast(pass: PassEvents): PassEvents {
  const reduces = pass.collectives.filter(({ kind }) => kind === "allReduce");
  return {
    ...pass,
    collectives: [...pass.collectives.filter(({ kind }) => kind !== "allReduce"), ...reduces],
  };
}

/** Registers the tests. */
export function communication(subject: Subject): void {
  const { several, largeWorlds, worlds, hostVisible, timeout } = subject;

  /** What every rank saw in its last step, which must be what all saw. */
  const seen = async (worldSize: number, spec: EventsSpec): Promise<readonly [PassEvents, PassEvents]> => {
    const results = await subject.run(worldSize, events, spec);
    const [first, ...others] = results.map((steps) => steps.map((passes) => passes.map(replicasLast)));
    for (const other of others) expect(other).toEqual(first!);
    return results[0]!.at(-1)!;
  };

  describe("a step", () => {
    for (const worldSize of [...several, ...largeWorlds]) {
      test(
        `gathers each group before forward, again before backward where it was freed, and reduces each once, on ${worldSize} ranks`,
        async () => {
          const divisor = [2, 3].find((k) => worldSize % k === 0)!;
          const cases: readonly (readonly [ShardSpec["reshardAfterForward"], number])[] = [
            [true, GROUPS],
            [divisor, GROUPS],
            [undefined, LAYERS],
            [false, 0],
          ];
          const check = async ([reshardAfterForward, again]: (typeof cases)[number]): Promise<void> => {
            const sharding = reshardAfterForward === undefined ? {} : { reshardAfterForward };
            const [forward, backward] = await seen(worldSize, { layers: LAYERS, sharding, steps: 2 });
            const counted = [forward, backward].map((pass) => [
              count(pass, "allGather"),
              count(pass, "reduceScatter"),
              count(pass, "allReduce"),
            ]);
            expect([reshardAfterForward, counted]).toEqual([
              reshardAfterForward,
              [
                [GROUPS, 0, 0],
                [again, GROUPS, 0],
              ],
            ]);
            // Neighbours have a group of their own, whose calls are not counted.
            const own = typeof reshardAfterForward === "number" && divisor < worldSize ? 0 : again;
            const name = (what: string, times: number) =>
              new Array<string>(times).fill(hostVisible ? what : "share");
            expect(forward.calls).toEqual(name("allGather", GROUPS));
            expect(backward.calls.toSorted()).toEqual([
              ...name("allGather", own),
              ...name("reduceScatter", GROUPS),
            ]);
          };
          await Promise.all(cases.map(check));
        },
        timeout,
      );
    }

    if (worlds.includes(1)) {
      test(
        "on one rank communicates nothing",
        async () => {
          for (const reshardAfterForward of [true, false]) {
            const [forward, backward] = await seen(1, { layers: LAYERS, sharding: { reshardAfterForward } });
            expect([...forward.calls, ...backward.calls]).toEqual([]);
            expect([...forward.collectives, ...backward.collectives]).toEqual([]);
          }
        },
        timeout,
      );
    }

    for (const mesh of [
      [2, 1],
      [2, 2],
    ].filter(([r, s]) => worlds.includes(r! * s!))) {
      test(
        `on a mesh of ${mesh.join(" x ")} reduces what it scattered over replicas too, once a group`,
        async () => {
          const [replicas, shards] = mesh as [number, number];
          const sharding = { mesh, reshardAfterForward: true };
          const [forward, backward] = await seen(replicas * shards, { layers: LAYERS, sharding });
          const cut = shards > 1 ? GROUPS : 0;
          expect([count(forward, "allGather"), count(backward, "allGather")]).toEqual([cut, cut]);
          expect([count(backward, "reduceScatter"), count(backward, "allReduce")]).toEqual([cut, GROUPS]);
          for (const { kind, ranks } of backward.collectives) {
            expect(ranks).toBe(kind === "allReduce" ? replicas : shards);
          }
        },
        timeout,
      );
    }
  });

  const [world] = several;
  if (world === undefined) return;
  /** Words of the last step's forward and backward. */
  const words = async (spec: Partial<EventsSpec>): Promise<readonly string[]> => {
    const step = await seen(world, { layers: LAYERS, sharding: {}, ...spec });
    return step.map((pass) => pass.words);
  };
  const FORWARD = "Ur U0 R0 U1 R1 U2 R2";

  describe("the order of a step", () => {
    test(
      "is forward's reversed in backward, one group ahead, activations computed again or not",
      async () => {
        const check = async (checkpointed: Pick<ShardSpec, "checkpointed">): Promise<void> => {
          const of = (sharding: ShardSpec) => words({ sharding: { ...sharding, ...checkpointed }, steps: 2 });
          const [freed, usual, kept] = await Promise.all([
            of({ reshardAfterForward: true }),
            of({}),
            of({ reshardAfterForward: false }),
          ]);
          expect(freed).toEqual([`${FORWARD} Rr`, "Ur U2 U1 R2 P2 U0 R1 P1 R0 P0 Rr Pr"]);
          expect(usual).toEqual([FORWARD, "U2 U1 R2 P2 U0 R1 P1 R0 P0 Rr Pr"]);
          expect(kept).toEqual(["Ur U0 U1 U2", "R2 P2 R1 P1 R0 P0 Rr Pr"]);
        };
        const arrangements = [{}, { checkpointed: "blocks" }, { checkpointed: "layers" }] as const;
        await Promise.all(arrangements.map(check));
      },
      timeout,
    );

    test(
      "gathers by lists any number of groups ahead, forward and backward",
      async () => {
        const of = (spec: Partial<EventsSpec>) =>
          words({ layers: 4, sharding: { reshardAfterForward: true }, ...spec });
        const [one, two, back] = await Promise.all([
          of({ forwardAhead: [1] }),
          of({ forwardAhead: [1, 2] }),
          of({ backwardAhead: [-1, -2] }),
        ]);
        expect(one[0]).toBe("Ur U0 U1 R0 U2 R1 U3 R2 R3 Rr");
        expect(two[0]).toBe("Ur U0 U1 U2 R0 U3 R1 R2 R3 Rr");
        expect(back[1]).toBe("Ur U3 U2 U1 R3 P3 U0 R2 P2 R1 P1 R0 P0 Rr Pr");
      },
      timeout,
    );

    test(
      "takes a list of modules as one group, and wrong lists without harm",
      async () => {
        const lists: ShardSpec = { groups: "lists", reshardAfterForward: true };
        const [[forward, backward], wrong] = await Promise.all([
          words({ layers: 4, sharding: lists }),
          words({ sharding: { reshardAfterForward: true }, forwardAhead: [-1, -2], backwardAhead: [1, 2] }),
        ]);
        expect(forward).toBe("Uinnerouter U01 R01 U23 R23 Rinnerouter");
        expect(backward).toBe("Uinnerouter U23 U01 R23 P23 R01 P01 Rinnerouter Pinnerouter");
        expect(wrong[1]!.split(" ").filter((word) => word.startsWith("P"))).toEqual(["P2", "P1", "P0", "Pr"]);
      },
      timeout,
    );

    test(
      "gathers once more what was freed by hand before backward",
      async () => {
        const [, backward] = await words({ sharding: { reshardAfterForward: false }, reshardBetween: true });
        expect(backward).toBe("Ur U2 U1 R2 P2 U0 R1 P1 R0 P0 Rr Pr");
      },
      timeout,
    );

    test(
      "follows what is set later, here alone or below too, as if it had been given at first",
      async () => {
        const of = (given: boolean, value: boolean, recurse: boolean) =>
          words({ sharding: { reshardAfterForward: given }, reshardAfterForward: { value, recurse } });
        const [off, rootOff, on] = await Promise.all([
          of(true, false, true),
          of(true, false, false),
          of(false, true, true),
        ]);
        expect(off).toEqual(["Ur U0 U1 U2", "R2 P2 R1 P1 R0 P0 Rr Pr"]);
        expect(rootOff).toEqual([FORWARD, "U2 U1 R2 P2 U0 R1 P1 R0 P0 Rr Pr"]);
        expect(on).toEqual([`${FORWARD} Rr`, "Ur U2 U1 R2 P2 U0 R1 P1 R0 P0 Rr Pr"]);
      },
      timeout,
    );

    test(
      "is the same in the last of several backward passes over as many forward passes",
      async () => {
        const [[forward], [, backward]] = await Promise.all([
          words({ forwards: 2 }),
          words({ forwards: 2, sharding: { reshardAfterForward: true } }),
        ]);
        expect(forward).toBe(`${FORWARD} U0 R0 U1 R1 U2 R2`);
        expect(backward).toBe("Ur U2 U1 R2 P2 U0 R1 P1 R0 P0 Rr Pr");
      },
      timeout,
    );
  });
}

/** Late messages and uneven ranks change nothing (the delays of test_fully_shard_training.py, `_test_train_parity_multi_group`). */
import { describe, expect, test } from "bun:test";
import type { Delay, Delayable } from "./delayed.ts";
import type { ShardSpec } from "./programs/models.ts";
import { train } from "./programs/training.ts";
import type { Subject } from "./subject.ts";

const CALLS: readonly Delayable[] = ["allGather", "reduceScatter", "allReduce", "share"];

const SHARDINGS: readonly ShardSpec[] = [
  {},
  { reshardAfterForward: false, groups: "lists" },
  { reshardAfterForward: true, forwardPrefetch: true, offload: true },
  { groups: "layers", ahead: 2, maxReductions: 3, checkpointed: "blocks" },
];

/** Registers the tests. */
export function delays(subject: Subject): void {
  const { several, thorough, timeout } = subject;
  describe("late messages", () => {
    for (const worldSize of new Set([several[0], several.at(-1)])) {
      if (worldSize === undefined) continue;
      test(
        `change no bit of losses, gradients or weights on ${worldSize} ranks`,
        async () => {
          const grids: readonly ShardSpec[] =
            worldSize === 4
              ? [
                  { mesh: [2, 2], maxReductions: 3 },
                  { reshardAfterForward: 2, groups: "layers" },
                ]
              : [];
          const shardings = thorough ? [...SHARDINGS, ...grids] : SHARDINGS.slice(3);
          const late: readonly Delay[] = [
            { seed: 1, calls: CALLS },
            ...(thorough ? CALLS.map((call, i): Delay => ({ seed: 2 + i, calls: [call] })) : []),
          ];
          const check = async (sharding: ShardSpec, i: number): Promise<void> => {
            const spec = { model: { kind: "stack" }, sharding, steps: 2 } as const;
            // Each way to shard meets all delays together, and one of the others.
            const delaysOf = [late[0]!, late[1 + (i % (late.length - 1))]].filter(
              (delay) => delay !== undefined,
            );
            const [punctual, ...others] = await Promise.all([
              subject.run(worldSize, train, spec),
              ...delaysOf.map((delay) => subject.run(worldSize, train, { ...spec, uneven: true }, delay)),
            ]);
            for (const [d, other] of others.entries()) {
              expect(other, JSON.stringify({ sharding, delay: delaysOf[d] })).toEqual(punctual);
            }
          };
          await Promise.all(shardings.map(check));
        },
        timeout,
      );
    }
  });
}

/** What a rank's device holds (TestFullyShardMemory). */
import { describe, expect, test } from "bun:test";
import { type MemoryPoints, memoryPoints } from "./programs/memory.ts";
import type { ShardSpec } from "./programs/models.ts";
import type { Subject } from "./subject.ts";

/** PyTorch's test allows 16 MB for buffers, where a block has 28.3 MB. Activations are in it. */
const SLACK = 16 / 28.3;

/** PyTorch's bounds, in bytes. */
function bounds(sharding: ShardSpec, { whole, part, block, rest }: MemoryPoints["sizes"], worldSize: number) {
  const slack = SLACK * block;
  if (sharding.offload === true) {
    // What is uploaded for a gather and what a reduction left are on their way: a part of a block each, ours beside PyTorch's.
    const parts = (2 * block) / worldSize;
    return { forward: 3 * block + rest, backward: 4 * block + rest + parts + slack, updated: 0, zeroed: 0 };
  }
  const state = { updated: 4 * part, zeroed: 3 * part };
  if (sharding.reshardAfterForward === false) {
    return {
      forward: part + whole + block + slack,
      backward: part + whole + 1.5 * block + slack,
      ...state,
    };
  }
  return { forward: part + 3 * block + rest, backward: 2 * part + 4 * block + rest, ...state };
}

const SHARDINGS: readonly ShardSpec[] = [
  { reshardAfterForward: true },
  { reshardAfterForward: false },
  { reshardAfterForward: true, offload: true },
];

/** Registers the tests. */
export function memory(subject: Subject): void {
  const { several, timeout } = subject;
  describe("memory", () => {
    for (const worldSize of several) {
      test(
        `stays within PyTorch's bounds at every point, has equal peaks in every step and goes, on ${worldSize} ranks`,
        async () => {
          const check = async (sharding: ShardSpec): Promise<void> => {
            const results = await subject.run(worldSize, memoryPoints, { sharding });
            for (const { sizes, sharded, steps, left, ...points } of results) {
              const what = JSON.stringify({ worldSize, sharding, sizes });
              expect(sharded, what).toBe(sharding.offload === true ? 0 : sizes.part);
              for (const [point, most] of Object.entries(bounds(sharding, sizes, worldSize))) {
                expect(points[point as keyof typeof points], `${what}, ${point}`).toBeLessThanOrEqual(most);
              }
              expect(steps[1], what).toEqual(steps[0]!);
              expect(left, what).toBe(0);
            }
          };
          await Promise.all(SHARDINGS.map(check));
        },
        timeout,
      );
    }
  });
}

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { registry } from "../../../../mod.ts";
import { dryRun } from "../../../../plugins/accelerate/estimate/dry-run.ts";
import { allStrategies, applies } from "../../../../plugins/accelerate/estimate/strategies.ts";

describe("the first rank", () => {
  test("needs as much as any other, but for padding between parameters", async () => {
    const sizes = fc.record({
      n_layer: fc.integer({ min: 1, max: 3 }),
      n_embd: fc.integer({ min: 1, max: 40 }),
      n_inner: fc.integer({ min: 1, max: 90 }),
      vocab_size: fc.integer({ min: 1, max: 70 }),
    });
    const place = fc.record({
      worldSize: fc.integer({ min: 1, max: 24 }),
      rank: fc.nat({ max: 23 }),
      strategy: fc.constantFrom(...allStrategies(registry)),
    });
    await fc.assert(
      fc.asyncProperty(sizes, place, async (config, { worldSize, rank, strategy }) => {
        const world = { worldSize, ranksPerNode: 2 };
        fc.pre(applies(strategy, world));
        const model = { family: "gpt2", config: { ...config, n_head: 1 } };
        const workload = { batchSize: 1, seqLen: 2, optimizer: "adamw", momentum: 0 } as const;
        const init = { registry, model, strategy, world };
        const first = await dryRun(init, workload);
        const other = await dryRun({ ...init, rank: rank % worldSize }, workload);
        // At most three elements before each of a unit's parameters, four times over: update, gradient, two averages.
        const slack = 4 * 3 * 4 * (5 + 12 * config.n_layer);
        expect(first.device.peakTotal + slack).toBeGreaterThanOrEqual(other.device.peakTotal);
        expect(first.calls).toEqual(other.calls);
      }),
      { numRuns: 60 },
    );
  });
});

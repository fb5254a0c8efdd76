import { describe, expect, test } from "bun:test";
import { registry } from "../../../../mod.ts";
import { dryRun } from "../../../../plugins/accelerate/estimate/dry-run.ts";
import { buildModel } from "../../../../plugins/accelerate/estimate/model-choice.ts";
import type { Strategy } from "../../../../plugins/accelerate/estimate/strategies.ts";
import { type ZeroStage, zeroBytes } from "../../../../plugins/accelerate/estimate/zero.ts";

/** Figure 1 of the paper: 7.5 billion parameters on 64 ranks, gigabytes by stage. */
const PAPER: readonly (readonly [stage: ZeroStage, gigabytes: number])[] = [
  [0, 120],
  [1, 31.4],
  [2, 16.6],
  [3, 1.9],
];

describe("ZeRO's formula", () => {
  test("gives the paper's figures", () => {
    for (const [stage, gigabytes] of PAPER) {
      expect(Math.round(zeroBytes(stage, 7.5e9, 64) / 1e8) / 10).toBe(gigabytes);
    }
  });

  test("is what is counted of a model of that size in float32: 16 bytes a parameter, cut or whole", async () => {
    const model = { family: "gpt2", config: { n_embd: 4096, n_layer: 36, n_head: 32 } };
    const parameters = buildModel(registry, model)
      .module.parameters()
      .reduce((sum, { numel }) => sum + numel, 0);
    expect(parameters / 7.5e9).toBeCloseTo(1, 1);
    const counted = async (strategy: Omit<Strategy, "name">): Promise<number> => {
      const init = {
        registry,
        model,
        strategy: { name: "", ...strategy },
        world: { worldSize: 64, ranksPerNode: 8 },
      };
      const workload = { batchSize: 1, seqLen: 1, optimizer: "adamw", momentum: 0 } as const;
      const { parameter, gradient, optimizer } = (await dryRun(init, workload)).shards;
      return parameter + gradient + optimizer;
    };
    const whole = await counted({ version: "fsdp1", shardingStrategy: "NO_SHARD" });
    expect(whole).toBe(zeroBytes(0, parameters, 64));
    for (const version of ["fsdp1", "fsdp2"]) {
      // No extent but the vocabulary's is padded.
      expect((await counted({ version })) / zeroBytes(3, parameters, 64)).toBeCloseTo(1, 3);
    }
  });
});

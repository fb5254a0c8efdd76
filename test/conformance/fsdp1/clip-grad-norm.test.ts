/** PyTorch's test_fsdp_clip_grad_norm. */
import { describe, expect, test } from "bun:test";
import { StateError } from "../../../core/contracts/errors.ts";
import { clipGradNorm } from "../../../core/engine/clip.ts";
import { FullyShardedDataParallel, type ShardingStrategy } from "../../../plugins/fsdp1/mod.ts";
import { runRanks } from "../../support/ranks.ts";
import { failure, pass, sharded, stack } from "./harness.ts";

describe("clipGradNorm", () => {
  for (const normType of [1, 2, Number.POSITIVE_INFINITY]) {
    test(`gives the unsharded norm of order ${normType}, and the unsharded gradients`, async () => {
      for (const maxNorm of [0.01, 2.5]) {
        const [plain] = await runRanks(1, async (rank) => {
          const model = await stack().to(rank.device);
          await pass(rank, model, 0);
          const norm = await clipGradNorm(model.parameters(), maxNorm, { normType });
          return { norm, clipped: await clipGradNorm(model.parameters(), 1e9, { normType }) };
        });
        const strategies: readonly ShardingStrategy[] = ["FULL_SHARD", "NO_SHARD", "HYBRID_SHARD"];
        for (const shardingStrategy of strategies) {
          for (const useOrigParams of [true, false]) {
            const results = await runRanks(4, async (rank) => {
              const fsdp = await sharded(rank, { shardingStrategy, useOrigParams });
              await pass(rank, fsdp, 0);
              const norm = await fsdp.clipGradNorm(maxNorm, normType);
              return { norm, clipped: await fsdp.clipGradNorm(1e9, normType) };
            });
            for (const { norm, clipped } of results) {
              expect(norm).toBeCloseTo(plain!.norm, 5);
              expect(clipped).toBeCloseTo(plain!.clipped, 5);
            }
          }
        }
      }
    });
  }

  test("is refused on a module that lies within another", async () => {
    await runRanks(2, async ({ device, mesh }) => {
      const model = stack();
      const inner = new FullyShardedDataParallel(model.blocks[0]!, { mesh });
      await new FullyShardedDataParallel(model, { mesh }).to(device);
      expect(await failure(inner.clipGradNorm(1))).toBeInstanceOf(StateError);
      expect((await failure(inner.noSync(() => {}))).message).toMatch(/call it on the outermost/);
    });
  });

  test("is 0 on every rank when there are no gradients", async () => {
    expect(await runRanks(3, async (rank) => await (await sharded(rank)).clipGradNorm(1))).toEqual([0, 0, 0]);
  });

  test("takes gradients that were left in 16 bits, and leaves them so", async () => {
    const norm = async (keepLowPrecisionGrads: boolean, reduceDtype: "float16" | "bfloat16") => {
      const [result] = await runRanks(2, async (rank) => {
        const fsdp = await sharded(rank, {
          useOrigParams: true,
          mixedPrecision: { reduceDtype, keepLowPrecisionGrads },
        });
        await pass(rank, fsdp, 0);
        const dtype = keepLowPrecisionGrads ? reduceDtype : "float32";
        for (const { grad } of fsdp.parameters()) expect(grad?.dtype).toBe(dtype);
        const before = await fsdp.clipGradNorm(0.1);
        for (const { grad } of fsdp.parameters()) expect(grad?.dtype).toBe(dtype);
        return { before, after: await fsdp.clipGradNorm(0.1) };
      });
      return result!;
    };
    for (const dtype of ["float16", "bfloat16"] as const) {
      const [low, full] = [await norm(true, dtype), await norm(false, dtype)];
      expect(Math.abs(low.before - full.before) / full.before).toBeLessThan(1e-2);
      expect(Math.abs(low.after - 0.1)).toBeLessThan(1e-3);
    }
  });
});

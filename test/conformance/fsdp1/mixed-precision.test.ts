/** PyTorch's test_fsdp_mixed_precision: which dtype is where, at every stage of a step. */
import { describe, expect, test } from "bun:test";
import type { DType } from "../../../core/contracts/dtype.ts";
import { traceUnits } from "../../../core/engine/trace.ts";
import { Embedding, Linear, Module } from "../../../core/nn/mod.ts";
import { AdamW } from "../../../core/optim/mod.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { FullyShardedDataParallel } from "../../../plugins/fsdp1/mod.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import { batch, expectSame, type Options, sharded, train, trainPlain } from "./harness.ts";

/** Dtypes of a pass: of a block's input and weights while it computes, of its output, and of what travels. */
async function dtypesOf(rank: TestRank, options: Options) {
  const fsdp = await sharded(rank, options);
  const block = fsdp.module.blocks[1]!;
  const seen: Record<string, DType> = {};
  block.up.wrapCall(async (args, next) => {
    seen.input = (args[0] as Tensor).dtype;
    seen.weight = block.up.weight.dtype;
    return await next(args);
  });
  traceUnits(fsdp, (event) => {
    if ("dtype" in event && event.unit === "blocks.1") seen[event.kind] = event.dtype;
  });
  await rank.device.scope(async () => {
    const out = await fsdp.call(batch(rank, 0).x);
    seen.output = out.dtype;
    await ops.mean(out).backward();
  });
  return { fsdp, seen };
}

describe("mixed precision", () => {
  for (const paramDtype of ["float16", "bfloat16"] as const) {
    test(`computes and communicates in ${paramDtype}, and keeps everything else in float32`, async () => {
      for (const shardingStrategy of ["FULL_SHARD", "SHARD_GRAD_OP"] as const) {
        for (const useOrigParams of [true, false]) {
          await runRanks(2, async (rank) => {
            const options = { shardingStrategy, useOrigParams, mixedPrecision: { paramDtype } };
            const { fsdp, seen } = await dtypesOf(rank, options);
            expect(seen).toEqual({
              input: paramDtype,
              weight: paramDtype,
              output: paramDtype,
              allGather: paramDtype,
              // Left out, it is paramDtype.
              reduceScatter: paramDtype,
            });
            const optimizer = new AdamW(fsdp.parameters(), { lr: 0.01 });
            optimizer.step();
            for (const parameter of fsdp.parameters()) {
              const { tensors } = optimizer.state(parameter)!;
              const dtypes = [parameter.local, parameter.grad!, ...tensors.map(({ tensor }) => tensor)];
              expect(new Set(dtypes.map(({ dtype }) => dtype))).toEqual(new Set(["float32"]));
            }
            for (const { dtype } of Object.values(await fsdp.stateDict())) expect(dtype).toBe("float32");
            await fsdp.summonFullParams({}, () => {
              expect(fsdp.module.inner.weight.dtype).toBe("float32");
            });
          });
        }
      }
    });
  }

  test("reduces in a dtype of its own", async () => {
    await runRanks(2, async (rank) => {
      const mixedPrecision = { paramDtype: "bfloat16", reduceDtype: "float32" } as const;
      const { seen } = await dtypesOf(rank, { mixedPrecision });
      expect([seen.allGather, seen.reduceScatter]).toEqual(["bfloat16", "float32"]);
    });
    await runRanks(2, async (rank) => {
      const { seen } = await dtypesOf(rank, { mixedPrecision: { reduceDtype: "bfloat16" } });
      expect([seen.allGather, seen.weight, seen.reduceScatter]).toEqual(["float32", "float32", "bfloat16"]);
    });
  });

  test("is low in evaluation too", async () => {
    await runRanks(2, async (rank) => {
      const fsdp = await sharded(rank, { mixedPrecision: { paramDtype: "bfloat16" } });
      fsdp.eval();
      await rank.device.noGrad(() =>
        rank.device.scope(async () => {
          expect((await fsdp.call(batch(rank, 0).x)).dtype).toBe("bfloat16");
        }),
      );
    });
  });

  test("trains as float32 does, within the rounding of a dtype that is wider", async () => {
    const [reference] = await runRanks(1, (rank) => trainPlain(rank));
    const mixedPrecision = { paramDtype: "float64", reduceDtype: "float64" } as const;
    // Targets stay float32; what is compared is not.
    const runs = await runRanks(3, (rank) =>
      train(rank, { mixedPrecision: { reduceDtype: mixedPrecision.reduceDtype } }),
    );
    for (const run of runs) expectSame(run, reference!);
  });

  test("casts the root's floating inputs unless told not to, other units' only when told to, integers never", async () => {
    class Table extends Module<[ids: Tensor, scale: Tensor], Tensor> {
      readonly rows = new Embedding(5, 4);
      readonly out = new Linear(4, 2);
      readonly seen: DType[] = [];
      override async forward(ids: Tensor, scale: Tensor): Promise<Tensor> {
        this.seen.push(ids.dtype, scale.dtype);
        const states = ops.mul(await this.rows.call(ids), scale);
        return await this.out.call(ops.cast(states, "float32"));
      }
    }
    const inputs = async (mixedPrecision: NonNullable<Options["mixedPrecision"]>) => {
      const [seen] = await runRanks(2, async ({ device, mesh }) => {
        const table = new Table();
        table.out.wrapCall(async (args, next) => {
          table.seen.push((args[0] as Tensor).dtype);
          return await next(args);
        }, "inside");
        const options = { mesh, mixedPrecision, autoWrapPolicy: (module: unknown) => module === table.out };
        const fsdp = await new FullyShardedDataParallel(table, options).to(device);
        await device.scope(async () => {
          const ids = device.tensor(Int32Array.from([1, 2]), { shape: [2] });
          const scale = device.full([2, 4], 2, {
            dtype: mixedPrecision.castRootForwardInputs === false ? "bfloat16" : "float32",
          });
          await fsdp.call(ids, scale).catch(() => {});
        });
        return table.seen;
      });
      return seen!;
    };
    const paramDtype = "bfloat16";
    expect((await inputs({ paramDtype })).slice(0, 2)).toEqual(["int32", "bfloat16"]);
    expect((await inputs({ paramDtype })).at(2)).toBe("float32");
    expect((await inputs({ paramDtype, castForwardInputs: true })).at(2)).toBe("bfloat16");
  });

  test("casts tensors that modules hold beside parameters once, where a dtype is given for them", async () => {
    class Shifted extends Module<[x: Tensor], Tensor> {
      readonly linear = new Linear(3, 3);
      readonly shift: Tensor;
      constructor(shift: Tensor) {
        super();
        this.shift = shift;
      }
      override async forward(x: Tensor): Promise<Tensor> {
        return ops.add(await this.linear.call(x), this.shift);
      }
    }
    await runRanks(2, async ({ device, mesh }) => {
      const mixedPrecision = { paramDtype: "bfloat16", bufferDtype: "bfloat16" } as const;
      const model = new Shifted(device.full([3], 0.5));
      const fsdp = await new FullyShardedDataParallel(model, { mesh, mixedPrecision }).to(device);
      let held: Tensor | undefined;
      for (let i = 0; i < 2; i++) {
        await device.scope(async () => {
          expect((await fsdp.call(device.ones([2, 3]))).dtype).toBe("bfloat16");
        });
        expect(model.shift.dtype).toBe("bfloat16");
        held ??= model.shift;
        expect(model.shift).toBe(held);
      }
    });
  });

  test("leaves classes that it is told to ignore in full precision, as units of their own", async () => {
    await runRanks(2, async (rank) => {
      const mixedPrecision = { paramDtype: "bfloat16", moduleClassesToIgnore: [Linear] } as const;
      const fsdp = await sharded(rank, { mixedPrecision });
      expect(fsdp.handles.map(({ module }) => module)).toEqual([
        "inner",
        "blocks.0.up",
        "blocks.0.down",
        "blocks.1.up",
        "blocks.1.down",
        "outer",
      ]);
      const { up } = fsdp.module.blocks[0]!;
      const dtypes: DType[] = [];
      up.wrapCall(async (args, next) => {
        const out = (await next(args)) as Tensor;
        dtypes.push((args[0] as Tensor).dtype, up.weight.dtype, out.dtype);
        return out;
      }, "inside");
      await rank.device.scope(async () => {
        const out = await fsdp.call(batch(rank, 0).x);
        expect(out.dtype).toBe("bfloat16");
        await ops.mean(out).backward();
      });
      expect(dtypes).toEqual(["float32", "float32", "float32"]);
    });
  });
});

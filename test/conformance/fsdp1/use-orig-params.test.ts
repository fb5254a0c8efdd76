/** PyTorch's test_fsdp_use_orig_params: what optimizers see, and what may differ within a unit. */
import { describe, expect, test } from "bun:test";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { noWrap } from "../../../core/engine/wrap-policy.ts";
import type { Module, Parameter } from "../../../core/nn/mod.ts";
import { AdamW, SGD } from "../../../core/optim/mod.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { FullyShardedDataParallel } from "../../../plugins/fsdp1/mod.ts";
import type { Stack } from "../../support/models.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import { batch, pass, sharded, stack, weightsOf } from "./harness.ts";

type Model = Module<[x: Tensor], Tensor>;

/** Trains a model with what `prepare` makes of it, sharded and not, and compares the weights. */
async function expectParity(
  worldSizes: readonly number[],
  freeze: (model: Stack) => void,
  prepare: (
    parameters: readonly (readonly [string, Parameter])[],
  ) => readonly { step(): void; zeroGrad(): void }[],
): Promise<void> {
  const run = async (rank: TestRank, model: Model): Promise<void> => {
    const optimizers = prepare([...model.namedParameters()]);
    for (let step = 0; step < 3; step++) {
      await pass(rank, model, step);
      for (const optimizer of optimizers) {
        optimizer.step();
        optimizer.zeroGrad();
      }
    }
  };
  const [plain] = await runRanks(1, async (rank) => {
    const model = stack();
    freeze(model);
    await run(rank, await model.to(rank.device));
    const weights: Record<string, number[]> = {};
    for (const [name, parameter] of model.namedParameters())
      weights[name] = Array.from(await parameter.data(), Number);
    return weights;
  });
  for (const worldSize of worldSizes) {
    for (const shardingStrategy of ["FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD"] as const) {
      const results = await runRanks(worldSize, async (rank) => {
        const model = stack();
        freeze(model);
        const options = { mesh: rank.mesh, useOrigParams: true, shardingStrategy, autoWrapPolicy: noWrap };
        const fsdp = await new FullyShardedDataParallel(model, { ...options, onWarning: () => {} }).to(
          rank.device,
        );
        await run(rank, fsdp);
        return await weightsOf(fsdp);
      });
      for (const weights of results) {
        for (const [name, values] of Object.entries(weights)) {
          for (const [i, value] of values.entries()) expect(value).toBeCloseTo(plain![name]![i]!, 5);
        }
      }
    }
  }
}

describe("original parameters", () => {
  test("of one unit may have hyperparameters of their own", () =>
    expectParity(
      [1, 2, 3, 4],
      () => {},
      (parameters) => {
        const of = (end: string) =>
          parameters.filter(([name]) => name.endsWith(end)).map(([, parameter]) => parameter);
        return [
          new AdamW(
            [
              { params: of("weight"), weightDecay: 0.3 },
              { params: of("bias"), lr: 0.05 },
            ],
            { lr: 0.01 },
          ),
        ];
      },
    ));

  test("of one unit may learn in part", () =>
    expectParity(
      [1, 2, 3],
      (model) => {
        for (const [name, parameter] of model.namedParameters())
          parameter.requiresGrad = !name.endsWith("up.weight");
      },
      (parameters) => [
        new AdamW(
          parameters.map(([, parameter]) => parameter),
          { lr: 0.01 },
        ),
      ],
    ));

  test("of one unit may belong to several optimizers", () =>
    expectParity(
      [2, 3],
      () => {},
      (parameters) => {
        const [some, others] = [parameters.slice(0, 4), parameters.slice(4)];
        return [
          new AdamW(
            some.map(([, parameter]) => parameter),
            { lr: 0.01 },
          ),
          new SGD(
            others.map(([, parameter]) => parameter),
            { lr: 0.05, momentum: 0.9 },
          ),
        ];
      },
    ));

  test("have the model's names, and this rank's range of each as a 1-D tensor, empty where it has nothing", async () => {
    const shapes = await runRanks(2, async (rank) => {
      const fsdp = await sharded(rank, { useOrigParams: true });
      expect([...fsdp.namedParameters()].map(([name]) => name)).toEqual(
        [...stack().namedParameters()].map(([name]) => name),
      );
      await pass(rank, fsdp, 0);
      return fsdp.parameters().map(({ local, grad }) => {
        expect(grad?.numel ?? 0).toBe(local.numel);
        return local.shape;
      });
    });
    for (const [i, parameter] of stack().parameters().entries()) {
      expect(shapes[0]![i]!).toHaveLength(1);
      expect(shapes[0]![i]![0]! + shapes[1]![i]![0]!).toBe(parameter.numel);
    }
    expect(shapes[0]!.some(([numel]) => numel === 0)).toBe(true);
  });
});

describe("without them", () => {
  test("modules list one flat parameter a unit, of which each rank has an equal range", async () => {
    await runRanks(3, async (rank) => {
      const fsdp = await sharded(rank);
      expect([...fsdp.namedParameters()].map(([name, { shape }]) => [name, shape])).toEqual([
        ["_flat_param", [43]],
        ["blocks.0._flat_param", [97]],
        ["blocks.1._flat_param", [97]],
      ]);
      expect(fsdp.module.parameters()).toEqual(fsdp.parameters());
      await pass(rank, fsdp, 0);
      for (const { local, grad } of fsdp.parameters()) expect(grad!.numel).toBe(local.numel);
      // A gradient lies in one place.
      expect(fsdp.module.inner.weight.grad).toBeUndefined();
    });
  });

  test("a unit is frozen as a whole, or not at all", async () => {
    await runRanks(2, async (rank) => {
      const mixed = stack();
      mixed.blocks[0]!.up.weight.requiresGrad = false;
      const shard = () => new FullyShardedDataParallel(mixed, { mesh: rank.mesh });
      expect(shard).toThrow(ConfigError);
      expect(shard).toThrow(
        /"inner.weight" requires a gradient and "blocks.0.up.weight" does not, which takes useOrigParams: true/,
      );

      const fsdp = await sharded(rank);
      const [root, first] = fsdp.parameters();
      first!.requiresGrad = false;
      expect(fsdp.module.blocks[0]!.up.weight.requiresGrad).toBe(false);
      await pass(rank, fsdp, 0);
      expect(first!.grad).toBeUndefined();
      expect(root!.grad).toBeDefined();
    });
  });

  test("parts that the loss does not reach get zeros, and the rest its gradient", async () => {
    for (const worldSize of [1, 2, 3]) {
      await runRanks(worldSize, async (rank) => {
        const fsdp = await sharded(rank, { autoWrapPolicy: noWrap });
        const model = fsdp.module;
        await rank.device.scope(async () => {
          const { x } = batch(rank, 0);
          // Of the root's only unit just the first layer takes part.
          model.forward = async (input) => await model.inner.call(input);
          await ops.sum(await fsdp.call(x)).backward();
        });
        const [flat] = fsdp.parameters();
        const gathered = await runGather(rank, flat!);
        // inner.weight and inner.bias come first.
        expect(gathered.slice(0, 36).every((value) => value !== 0)).toBe(true);
        expect(gathered.slice(36).every((value) => value === 0)).toBe(true);
      });
    }
  });
});

/** The whole gradient of a flat parameter. */
async function runGather(rank: TestRank, flat: Parameter): Promise<number[]> {
  const whole = new Float32Array(flat.numel);
  const { offsets } = flat.pieces[0] ?? { offsets: [0] };
  whole.set((await flat.grad!.data()) as Float32Array, offsets[0]);
  await rank.collective.allReduce(whole, "sum", "float32").wait();
  return Array.from(whole);
}

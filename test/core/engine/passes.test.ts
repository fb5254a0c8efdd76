import { describe, expect, test } from "bun:test";
import { StateError } from "../../../core/contracts/errors.ts";
import { shardModule } from "../../../core/engine/shard-module.ts";
import { unitsBelow } from "../../../core/engine/sharded-modules.ts";
import { traceUnits } from "../../../core/engine/trace.ts";
import { checkpoint, Linear, Module, Sequential } from "../../../core/nn/mod.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { dim0Shard } from "../../../plugins/fsdp2/dim-shard.ts";
import { fullyShard, registerForwardMethod } from "../../../plugins/fsdp2/mod.ts";
import type { Stack } from "../../support/models.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";
import { sharded } from "../../support/sharded-stack.ts";
import {
  batch,
  expectSame,
  forwardBackward,
  smallStack,
  trainedAlone,
  trainStack,
} from "../../support/training.ts";

describe("several backward passes", () => {
  test("over one forward are one iteration when only the last is called last", async () => {
    const gradientsOf = (split: boolean) =>
      runRanks(2, async (rank) => {
        const { model, words } = sharded(rank, 2, { reshardAfterForward: false });
        await model.to(rank.device);
        await rank.device.scope(async () => {
          const { x, y } = batch(rank, 0);
          const out = await model.call(x);
          const [first, second] = [ops.mseLoss(out, y), ops.mean(out)];
          if (split) {
            model.setIsLastBackward(false);
            await first.backward({ retainGraph: true });
            model.setIsLastBackward(true);
            words.length = 0;
            await second.backward();
          } else await ops.add(first, second).backward();
        });
        for (const unit of unitsBelow(model)) expect(unit.state).toBe("sharded");
        return await Promise.all(
          model.parameters().map(async (p) => Array.from(await p.grad!.data(), Number)),
        );
      });
    const [whole, parts] = [await gradientsOf(false), await gradientsOf(true)];
    for (const [r, gradients] of parts.entries()) {
      for (const [i, gradient] of gradients.entries()) {
        for (const [j, value] of gradient.entries()) expect(value).toBeCloseTo(whole[r]![i]![j]!, 5);
      }
    }
  });
});

describe("activation checkpointing", () => {
  const reference = trainedAlone();
  const arrangements: readonly [string, (model: Stack, rank: TestRank) => void][] = [
    [
      "before sharding",
      (model, { mesh }) => {
        for (const block of model.blocks) fullyShard(checkpoint(block), { mesh });
        fullyShard(model, { mesh });
      },
    ],
    [
      "after sharding",
      (model, { mesh }) => {
        for (const block of model.blocks) checkpoint(fullyShard(block, { mesh }));
        fullyShard(model, { mesh });
      },
    ],
    [
      "inside a group",
      (model, { mesh }) => {
        for (const block of model.blocks) {
          checkpoint(block.up);
          fullyShard(block, { mesh });
        }
        fullyShard(model, { mesh });
      },
    ],
    [
      "around groups",
      (model, { mesh }) => {
        for (const block of model.blocks) {
          fullyShard(block.up, { mesh });
          fullyShard(block.down, { mesh });
          checkpoint(block);
        }
        fullyShard(model, { mesh });
      },
    ],
    [
      "around the model",
      (model, { mesh }) => {
        for (const block of model.blocks) fullyShard(block, { mesh });
        fullyShard(checkpoint(model), { mesh });
      },
    ],
  ];
  for (const [name, shard] of arrangements) {
    test(`${name} trains as without`, async () => {
      for (const worldSize of [1, 2, 4]) {
        const results = await runRanks(worldSize, (rank) =>
          trainStack(rank, { shard: (model) => shard(model, rank) }),
        );
        expectSame(results, await reference);
      }
    });
  }

  test("around groups frees each when the next is computed again, and reduces each once", async () => {
    await runRanks(2, async (rank) => {
      const layers = Array.from({ length: 3 }, () => fullyShard(new Linear(4, 4), { mesh: rank.mesh }));
      const middle = checkpoint(new Sequential(...layers));
      const model = fullyShard(new Sequential(new Linear(4, 4), middle), { mesh: rank.mesh });
      await model.to(rank.device);
      const words: string[] = [];
      await rank.device.scope(async () => {
        const out = ops.sum(await model.call(rank.device.ones([1, 4])));
        traceUnits(model, ({ kind, unit }) => {
          if (kind === "reduceScatter") words.push(`S${unit}`);
          if (kind === "unshard" || kind === "reshard")
            words.push(`${kind === "unshard" ? "U" : "R"}${unit}`);
        });
        await out.backward();
      });
      expect(words.join(" ")).toBe("U1.0 R1.0 U1.1 R1.1 U1.2 R1.2 S1.2 U1.1 R1.1 S1.1 U1.0 R1.0 S1.0 R S");
    });
  });
});

describe("after an exception", () => {
  test("in forward or in backward, the next step is as if nothing had been", async () => {
    for (const where of ["forward", "backward"] as const) {
      const results = await runRanks(2, async (rank) => {
        const { model } = sharded(rank, 3, { forwardPrefetch: true });
        await model.to(rank.device);
        await forwardBackward(rank, model, 0);
        const clean = await Promise.all(model.parameters().map((p) => p.grad!.data()));
        for (const parameter of model.parameters()) {
          parameter.grad?.dispose();
          parameter.grad = undefined;
        }
        const before = rank.device.backend.memory.report().currentTotal;
        let fails = true;
        // Every rank fails at the same place, as a wrong shape would.
        model.blocks[1]!.down.wrapCall(async (args, next) => {
          const result = await next(args);
          if (!fails) return result;
          if (where === "forward") throw new StateError("stopped here");
          const [x] = args as [Parameters<typeof ops.relu>[0]];
          return x.device.record(ops.add(result as typeof x, 0), {
            op: "stop",
            inputs: [result as typeof x],
            backward: () => {
              throw new StateError("stopped here");
            },
          });
        });
        await expect(forwardBackward(rank, model, 0)).rejects.toThrow("stopped here");
        model.resetIterState();
        await rank.collective.barrier().wait();
        for (const unit of unitsBelow(model)) expect(unit.state).toBe("sharded");
        expect(rank.device.backend.memory.report().currentTotal).toBe(before);
        fails = false;
        await forwardBackward(rank, model, 0);
        return { clean, again: await Promise.all(model.parameters().map((p) => p.grad!.data())) };
      });
      for (const { clean, again } of results) expect(again).toEqual(clean);
    }
  });
});

describe("nested calls", () => {
  /** Calls its child, which is of the same group, between two uses of its own parameter. */
  class Outer extends Module<[x: Tensor], Tensor> {
    readonly child: Linear = new Linear(3, 3);
    readonly own: Linear = new Linear(3, 3);
    override async forward(x: Tensor): Promise<Tensor> {
      const states = await this.child.call(ops.linear(x, this.own.weight));
      return ops.linear(states, this.own.weight);
    }
    /** Computes before and after a call of itself. */
    async twice(x: Tensor): Promise<Tensor> {
      return ops.linear(await this.call(x), this.own.weight);
    }
  }

  test("within a group keep its parameters until the outermost ends", async () => {
    await runRanks(2, async (rank) => {
      const outer = new Outer();
      fullyShard([outer, outer.child], { mesh: rank.mesh, reshardAfterForward: true });
      const root = fullyShard(new Sequential(outer, new Linear(3, 1)), { mesh: rank.mesh });
      registerForwardMethod(outer, "twice");
      await root.to(rank.device);
      await rank.device.scope(async () => {
        await ops.sum(await root.call(rank.device.ones([2, 3]))).backward();
        await rank.device.noGrad(() => outer.twice(rank.device.ones([2, 3])));
      });
      expect(outer.own.weight.grad).toBeDefined();
      for (const unit of unitsBelow(root)) expect(unit.state).toBe("sharded");
    });
  });
});

describe("a disposed model", () => {
  test("leaves no memory and hears of no backward pass, and may be put on a device again", async () => {
    await runRanks(2, async (rank) => {
      const { memory } = rank.device.backend;
      const listeners = rank.device.backwardListeners.size;
      const { model } = sharded(rank, 2);
      for (let i = 0; i < 2; i++) {
        await model.to(rank.device);
        await forwardBackward(rank, model, i);
        await model.unshard();
        model.dispose();
        expect(memory.report().currentTotal).toBe(0);
        expect(rank.device.backwardListeners.size).toBe(listeners);
      }
      const plain = await smallStack(1).to(rank.device);
      await forwardBackward(rank, plain, 0);
      plain.dispose();
      expect(memory.report().currentTotal).toBe(0);
    });
  });
});

describe("another model on the device", () => {
  test("may run backward within a forward, which goes on as if it had not", async () => {
    await runRanks(2, async (rank) => {
      const inner = fullyShard(new Linear(3, 3), { mesh: rank.mesh });
      await inner.to(rank.device);
      /** Fits another model to its input before it computes with its own parameters. */
      class Fitting extends Module<[x: Tensor], Tensor> {
        readonly own: Linear = new Linear(3, 1);
        override async forward(x: Tensor): Promise<Tensor> {
          const before = ops.linear(x, this.own.weight);
          await ops.sum(await inner.call(x.detach())).backward();
          return ops.add(before, ops.linear(x, this.own.weight));
        }
      }
      const model = fullyShard(new Fitting(), { mesh: rank.mesh, reshardAfterForward: true });
      await model.to(rank.device);
      await rank.device.scope(async () => {
        const out = await model.call(rank.device.ones([2, 3]));
        expect(inner.weight.grad).toBeDefined();
        expect(model.own.weight.grad).toBeUndefined();
        await ops.sum(out).backward();
      });
      // Two uses of two rows of ones.
      const gradient = Array.from(await model.own.weight.grad!.data(), Number);
      if (rank.rank === 0) expect(gradient).toEqual([4, 4, 4]);
    });
  });

  test("keeps what it accumulated when a backward pass of the first fails", async () => {
    await runRanks(2, async (rank) => {
      const { model: first } = sharded(rank, 1);
      const { model: second } = sharded(rank, 1);
      for (const model of [first, second]) await model.to(rank.device);
      second.setRequiresGradientSync(false);
      await forwardBackward(rank, second, 0);
      first.outer.wrapCall(async (args, next) => {
        const result = (await next(args)) as Tensor;
        return result.device.record(ops.add(result, 0), {
          op: "stop",
          inputs: [result],
          backward: () => {
            throw new StateError("stopped here");
          },
        });
      });
      const error = await forwardBackward(rank, first, 0).catch((reason: unknown) => reason);
      expect(String(error)).toContain("stopped here");
      expect(second.inner.weight.unshardedGrad).toBeDefined();
      second.setRequiresGradientSync(true);
      await forwardBackward(rank, second, 1);
      expect(second.inner.weight.grad).toBeDefined();
    });
  });
});

describe("keepLowPrecisionGrads", () => {
  test("leaves gradients in the dtype of their reduction", async () => {
    for (const worldSize of [1, 2]) {
      await runRanks(worldSize, async (rank) => {
        const model = smallStack(1);
        const precision = { paramDtype: "float64", outputDtype: "float32" } as const;
        shardModule(model, {
          layout: dim0Shard,
          group: rank.collective,
          precision,
          keepLowPrecisionGrads: true,
        });
        await model.to(rank.device);
        await forwardBackward(rank, model, 0);
        for (const { grad, local } of model.parameters()) {
          expect([local.dtype, grad!.dtype]).toEqual(["float32", "float64"]);
        }
      });
    }
  });
});

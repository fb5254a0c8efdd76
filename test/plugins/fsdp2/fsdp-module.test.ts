import { describe, expect, test } from "bun:test";
import { setTimeout as sleep } from "node:timers/promises";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { gatherParameter } from "../../../core/engine/full-tensor.ts";
import { unitOf } from "../../../core/engine/sharded-modules.ts";
import { Linear, Module } from "../../../core/nn/mod.ts";
import { SGD } from "../../../core/optim/mod.ts";
import { Device } from "../../../core/tensor/device.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { fullyShard, isFSDPModule, registerForwardMethod } from "../../../plugins/fsdp2/mod.ts";
import { runRanks } from "../../support/ranks.ts";
import { remote } from "../../support/remote-backend.ts";
import { forwardBackward, smallStack } from "../../support/training.ts";

describe("a sharded module", () => {
  test("has its methods, and shows neither them nor anything else that was not there", async () => {
    await runRanks(2, async ({ mesh }) => {
      const model = new Linear(2, 3);
      const keys = Object.keys(model);
      expect(isFSDPModule(model)).toBe(false);
      const sharded = fullyShard(model, { mesh });
      expect(isFSDPModule(model)).toBe(true);
      expect(Object.keys(sharded)).toEqual(keys);
      expect([...sharded.namedParameters()].map(([name]) => name)).toEqual(["weight", "bias"]);
      // Types say so too, without casts, in lists as well.
      const [first, second] = fullyShard([new Linear(1, 1), smallStack(1)], { mesh });
      expect(first.weight.shape).toEqual([1, 1]);
      expect(second.blocks.length).toBe(1);
      second.setRequiresGradientSync(false);
    });
  });

  test("without parameters of its own has methods that do nothing here, and reach what is below", async () => {
    await runRanks(2, async (rank) => {
      const model = smallStack(1);
      fullyShard(model.blocks[0]!, { mesh: rank.mesh });
      fullyShard([model.inner, model.outer], { mesh: rank.mesh });
      const root = fullyShard(model, { mesh: rank.mesh });
      await model.to(rank.device);
      rank.calls.length = 0;
      await root.unshard();
      await root.unshard({ async: true }).wait();
      await root.reshard();
      expect(rank.calls).toEqual([]);
      root.setGradientDivideFactor(3);
      root.setRequiresGradientSync(false);
      await forwardBackward(rank, model, 0);
      expect(rank.calls).not.toContain("reduceScatter");
    });
  });
});

describe("unshard", () => {
  test("gives whole values before any forward pass, at once or later, until reshard", async () => {
    for (const worldSize of [1, 2, 3]) {
      await runRanks(worldSize, async (rank) => {
        const model = await fullyShard(new Linear(3, 4), { mesh: rank.mesh }).to(rank.device);
        const expected = await gatherParameter(model.weight);
        await model.unshard();
        expect(await model.weight.data()).toEqual(expected);
        await model.reshard();
        expect(unitOf(model)!.state).toBe("sharded");
        rank.calls.length = 0;
        const handle = model.unshard({ async: true });
        if (worldSize > 1) expect(rank.calls).toEqual(["allGather"]);
        expect(unitOf(model)!.state).toBe("gathering");
        await Promise.all([handle.wait(), handle.wait()]);
        expect(await model.weight.data()).toEqual(expected);
        // The forward pass finds them there.
        await rank.device.scope(async () => void (await model.call(rank.device.ones([1, 3]))));
        expect(rank.calls.length).toBe(worldSize > 1 ? 1 : 0);
        model.unshard({ async: true });
        await model.reshard();
        expect(unitOf(model)!.state).toBe("sharded");
      });
    }
  });

  test("never shows values from before an update that came while they were being gathered", async () => {
    await runRanks(2, async (rank) => {
      const model = await fullyShard(new Linear(2, 2), { mesh: rank.mesh }).to(rank.device);
      const optimizer = new SGD(model.parameters(), { lr: 1 });
      await rank.device.scope(async () => {
        await ops.sum(await model.call(rank.device.ones([1, 2]))).backward();
      });
      const handle = model.unshard({ async: true });
      optimizer.step();
      await handle.wait();
      const seen = await model.weight.data();
      await model.reshard();
      expect(seen).toEqual(await gatherParameter(model.weight));
    });
  });

  test("of all groups ahead serves a pipeline of microbatches", async () => {
    const run = (ahead: boolean) =>
      runRanks(2, async (rank) => {
        const inner = smallStack(2);
        const blocks = inner.blocks.map((block) =>
          fullyShard(block, { mesh: rank.mesh, reshardAfterForward: false }),
        );
        const model = fullyShard(inner, { mesh: rank.mesh, reshardAfterForward: false });
        await model.to(rank.device);
        if (ahead) for (const module of [model, ...blocks]) module.unshard({ async: true });
        for (let micro = 0; micro < 3; micro++) {
          const last = micro === 2;
          if (ahead) {
            model.setRequiresGradientSync(last);
            model.setIsLastBackward(last);
            model.setReshardAfterBackward(last);
          }
          await forwardBackward(rank, inner, micro);
        }
        const gathers = rank.calls.filter((name) => name === "allGather").length;
        const gradients = await Promise.all(
          model.parameters().map(async (p) => Array.from(await p.grad!.data(), Number)),
        );
        return { gathers, gradients };
      });
    const [plain, piped] = [await run(false), await run(true)];
    for (const [r, { gathers, gradients }] of piped.entries()) {
      expect(gathers).toBe(3);
      for (const [i, gradient] of gradients.entries()) {
        for (const [j, value] of gradient.entries())
          expect(value).toBeCloseTo(plain[r]!.gradients[i]![j]!, 5);
      }
    }
  });
});

describe("registerForwardMethod", () => {
  /** Has two ways to compute. */
  class Twofold extends Module<[x: Tensor], Tensor> {
    readonly linear: Linear = new Linear(3, 3);
    override forward(x: Tensor): Promise<Tensor> {
      return this.linear.call(x);
    }
    async generate(x: Tensor, times: number): Promise<Tensor> {
      let states = x;
      for (let i = 0; i < times; i++) states = ops.linear(states, this.linear.weight);
      return states;
    }
  }

  test("gathers for another method as for forward, frees what it leaves, and trains through it", async () => {
    await runRanks(2, async (rank) => {
      const model = await fullyShard(new Twofold(), { mesh: rank.mesh }).to(rank.device);
      const x = rank.device.ones([1, 3]);
      await expect(model.generate(x, 2)).rejects.toThrow(/is sharded now/);
      registerForwardMethod(model, "generate");
      const { memory } = rank.device.backend;
      await rank.device.scope(async () => {
        const before = memory.report().current.activation;
        const out = await rank.device.noGrad(() => model.generate(x, 4));
        expect(memory.report().current.activation - before).toBe(12);
        expect(out.shape).toEqual([1, 3]);
        await ops.sum(await model.generate(x, 2)).backward();
      });
      expect(model.linear.weight.grad).toBeDefined();
      expect(unitOf(model)!.state).toBe("sharded");
    });
  });

  test("refuses a name that is no method", () => {
    expect(() => registerForwardMethod(new Twofold(), "training" as never)).toThrow(ConfigError);
  });
});

describe("postAccumulateGradHook", () => {
  test("sees this rank's gradient, and lets the optimizer step within backward", async () => {
    const weights = (inside: boolean) =>
      runRanks(2, async (rank) => {
        const model = smallStack(1);
        fullyShard(model.blocks[0]!, { mesh: rank.mesh });
        await fullyShard(model, { mesh: rank.mesh }).to(rank.device);
        const optimizers = model.parameters().map((parameter) => new SGD([parameter], { lr: 0.1 }));
        if (inside) {
          for (const [i, parameter] of model.parameters().entries()) {
            parameter.postAccumulateGradHook = ({ grad, local }) => {
              expect(grad!.shape).toEqual(local.shape);
              optimizers[i]!.step();
              optimizers[i]!.zeroGrad();
            };
          }
        }
        for (let step = 0; step < 3; step++) {
          await forwardBackward(rank, model, step);
          for (const optimizer of optimizers) {
            optimizer.step();
            optimizer.zeroGrad();
          }
        }
        return await Promise.all(model.parameters().map((parameter) => gatherParameter(parameter)));
      });
    expect(await weights(true)).toEqual(await weights(false));
  });
});

test("a model that is disposed while it is gathered takes nothing from a device that is gone", async () => {
  const unhandled: unknown[] = [];
  const note = (error: unknown): void => void unhandled.push(error);
  process.on("unhandledRejection", note);
  try {
    await runRanks(2, async ({ mesh, device }) => {
      const model = fullyShard(new Linear(4, 4), { mesh });
      await model.to(new Device(remote(device.backend), { seed: 7 }));
      model.unshard({ async: true });
      model.dispose();
    });
    await sleep(20);
    expect(unhandled).toEqual([]);
  } finally {
    process.off("unhandledRejection", note);
  }
});

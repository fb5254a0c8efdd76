import { describe, expect, test } from "bun:test";
import { StateError } from "../../../core/contracts/errors.ts";
import { checkpoint, Dropout, Linear, Module, Sequential } from "../../../core/nn/mod.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { Stack } from "../../support/models.ts";
import { runRanks, type TestRank } from "../../support/ranks.ts";

interface Pair {
  readonly sum: Tensor;
  readonly parts: readonly Tensor[];
  readonly label: string;
}

/** Takes and gives tensors in structures, some of them not used, some not changed. */
class Structured extends Module<
  [inputs: { readonly a: Tensor; readonly b: readonly Tensor[] }, by: number],
  Pair
> {
  readonly linear: Linear = new Linear(3, 3);
  readonly dropout: Dropout = new Dropout(0.5);
  override async forward(
    { a, b }: { readonly a: Tensor; readonly b: readonly Tensor[] },
    by: number,
  ): Promise<Pair> {
    const hidden = await this.dropout.call(await this.linear.call(a));
    const scaled = ops.mul(hidden, by);
    return { sum: ops.add(scaled, b[0]!), parts: [scaled, b[0]!, ops.relu(hidden)], label: "kept" };
  }
}

/** Gradients of everything, and the loss, with and without. */
async function structured(rank: TestRank, on: boolean) {
  const { device } = rank;
  const model = new Structured();
  if (on) checkpoint(model);
  await model.to(device);
  const a = device.tensor([[1, 2, 3]], { requiresGrad: true });
  const b = device.tensor([[4, 5, 6]], { requiresGrad: true });
  const loss = await device.scope(async () => {
    const first = await model.call({ a, b: [b] }, 2);
    const second = await model.call({ a: first.sum, b: [b] }, 3);
    expect(first.label).toBe("kept");
    const total = ops.sum(ops.add(ops.mul(first.parts[0]!, second.sum), second.parts[1]!));
    await total.backward();
    return await total.item();
  });
  const tensors = [a, b, ...model.parameters()].map(({ grad }) => grad!);
  return {
    loss,
    gradients: await Promise.all(tensors.map((grad) => grad.data())),
    streams: device.streamPosition,
  };
}

describe("checkpoint", () => {
  test("gives the same bits, dropout too, through structured inputs and outputs", async () => {
    const [kept] = await runRanks(1, (rank) => structured(rank, false));
    const [forgotten] = await runRanks(1, (rank) => structured(rank, true));
    expect(forgotten).toEqual(kept!);
  });

  test("keeps less memory between forward and backward, and leaves nothing behind", async () => {
    const activations = async (on: boolean) => {
      const [bytes] = await runRanks(1, async ({ device }) => {
        const model = new Stack({ layers: 8, features: 4, width: 8, hidden: 64 });
        if (on) for (const block of model.blocks) checkpoint(block);
        await model.to(device);
        const { memory } = device.backend;
        const before = memory.report().current.activation;
        let held = 0;
        await device.scope(async () => {
          const out = ops.mean(await model.call(device.ones([16, 4])));
          held = memory.report().current.activation;
          await out.backward();
        });
        expect(memory.report().current.activation).toBe(before);
        return held;
      });
      return bytes!;
    };
    expect(await activations(true)).toBeLessThan((await activations(false)) / 4);
  });

  test("nests, and computes as often as it must", async () => {
    await runRanks(1, async ({ device }) => {
      let calls = 0;
      class Counted extends Linear {
        override forward(x: Tensor): Tensor {
          calls++;
          return super.forward(x);
        }
      }
      const inner = checkpoint(new Counted(2, 2));
      const outer = checkpoint(new Sequential(inner, new Linear(2, 2)));
      await outer.to(device);
      await device.scope(async () => {
        await ops.sum(await outer.call(device.ones([1, 2]))).backward();
      });
      // Forward, the outer one's recomputation, the inner one's.
      expect(calls).toBe(3);
      expect(inner.weight.grad).toBeDefined();
      await device.noGrad(() => device.scope(async () => void (await outer.call(device.ones([1, 2])))));
      expect(calls).toBe(4);
    });
  });

  test("hands an error of the recomputation to backward, which may be run again afterwards", async () => {
    await runRanks(1, async ({ device }) => {
      let fails = false;
      class Failing extends Linear {
        override forward(x: Tensor): Tensor {
          if (fails) throw new StateError("does not compute");
          return super.forward(x);
        }
      }
      const model = checkpoint(new Failing(2, 2));
      await model.to(device);
      const before = device.backend.memory.report().currentTotal;
      const step = () =>
        device.scope(async () => {
          const out = ops.sum(await model.call(device.ones([1, 2])));
          fails = model.weight.grad === undefined && !fails;
          await out.backward();
        });
      await expect(step()).rejects.toThrow("does not compute");
      expect(device.backend.memory.report().currentTotal).toBe(before);
      expect(device.gradEnabled).toBe(true);
      fails = false;
      model.weight.grad = undefined;
      await device.scope(async () => {
        await ops.sum(await model.call(device.ones([1, 2]))).backward();
      });
      expect(model.weight.grad).toBeDefined();
    });
  });

  test("may be walked twice when the tape is kept", async () => {
    await runRanks(1, async ({ device }) => {
      const model = await checkpoint(new Linear(2, 1)).to(device);
      await device.scope(async () => {
        const out = ops.sum(await model.call(device.tensor([[1, 2]])));
        await out.backward({ retainGraph: true });
        await out.backward();
      });
      expect(await model.weight.grad!.data()).toEqual(Float32Array.of(2, 4));
    });
  });

  test("refuses a module that is checkpointed already", () => {
    const model = checkpoint(new Linear(1, 1));
    expect(() => checkpoint(model)).toThrow(StateError);
  });
});

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { ShapeError, StateError } from "../../../core/contracts/errors.ts";
import type { Device } from "../../../core/tensor/device.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { bytesOn, testDevice, valuesOf } from "./gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

function leaf(...values: number[]): Tensor {
  return device.tensor(values, { requiresGrad: true });
}

describe("backward", () => {
  test("sums what arrives on several ways", async () => {
    using x = leaf(3);
    const square = ops.mul(x, x);
    await ops.add(ops.mul(square, x), square).backward();
    expect(await valuesOf(x.grad!)).toEqual([3 * 9 + 2 * 3]);
  });

  test("accumulates into grad over passes", async () => {
    using x = leaf(1, 2);
    for (let pass = 1; pass <= 3; pass++) {
      await ops.sum(ops.mul(x, x)).backward();
      expect(await valuesOf(x.grad!)).toEqual([2 * pass, 4 * pass]);
    }
  });

  test("two losses with a common trunk need retainGraph for the first", async () => {
    using x = leaf(2);
    const trunk = ops.exp(x);
    const first = ops.mul(trunk, 2);
    const second = ops.mul(trunk, 3);
    await first.backward({ retainGraph: true });
    await second.backward();
    const [grad] = await valuesOf(x.grad!);
    expect(grad).toBeCloseTo(5 * Math.exp(2), 4);

    const again = ops.exp(x);
    const third = ops.mul(again, 2);
    const fourth = ops.mul(again, 3);
    await third.backward();
    await expect(fourth.backward()).rejects.toThrow(
      'the tape behind "exp" was walked already, pass retainGraph: true to the first backward() to walk it twice',
    );
  });

  test("twice on one loss throws a StateError", async () => {
    using x = leaf(2);
    const loss = ops.mul(x, x);
    await loss.backward();
    await expect(loss.backward()).rejects.toThrow(StateError);
  });

  test("an output that no loss uses gets no gradient and is freed with its scope", async () => {
    using x = leaf(1, 2, 3, 4);
    const before = bytesOn(device);
    await device.scope(async () => {
      ops.exp(x);
      await ops.sum(ops.slice(x, 0, 0, 2)).backward();
    });
    expect(await valuesOf(x.grad!)).toEqual([1, 1, 0, 0]);
    expect(bytesOn(device)).toBe(before + x.grad!.byteLength);
  });

  test("reaches no further than detach, noGrad and tensors without a wish for gradients", async () => {
    using x = leaf(2);
    using y = device.tensor([5]);
    const stopped = ops.mul(x, x).detach();
    expect(stopped.requiresGrad).toBe(false);
    const unrecorded = await device.noGrad(() => ops.mul(x, x));
    expect(unrecorded.requiresGrad).toBe(false);
    expect(device.gradEnabled).toBe(true);
    await ops.mul(ops.mul(ops.mul(x, stopped), unrecorded), y).backward();
    expect(await valuesOf(x.grad!)).toEqual([4 * 4 * 5]);
    expect(y.grad).toBeUndefined();
    await expect(unrecorded.backward()).rejects.toThrow(
      "does not depend on anything that requires a gradient",
    );
  });

  test("noGrad ends when its body throws", async () => {
    const failing = device.noGrad(() => {
      throw new RangeError("on purpose");
    });
    await expect(failing).rejects.toThrow("on purpose");
    expect(device.gradEnabled).toBe(true);
  });

  test("stops at a result whose requiresGrad was taken away", async () => {
    using x = leaf(2);
    const square = ops.mul(x, x);
    square.requiresGrad = false;
    await ops.mul(x, square).backward();
    expect(await valuesOf(x.grad!)).toEqual([4]);
  });

  test("needs a gradient of the root's shape when the root is not one element", async () => {
    using x = leaf(1, 2);
    const y = ops.mul(x, x);
    await expect(y.backward()).rejects.toThrow("has more than one element, pass its gradient");
    using wrong = device.zeros([3]);
    await expect(y.backward({ gradient: wrong })).rejects.toThrow(ShapeError);
    using gradient = device.tensor([1, 10]);
    await y.backward({ gradient });
    expect(await valuesOf(x.grad!)).toEqual([2, 40]);
    expect(await valuesOf(gradient)).toEqual([1, 10]);
  });

  test("a failing operation fails the pass, tells listeners and leaves no memory behind", async () => {
    using x = leaf(1, 2, 3, 4);
    const calls: string[] = [];
    const listener = {
      backwardEnd: async () => void calls.push("end"),
      backwardFailed: () => void calls.push("failed"),
    };
    device.backwardListeners.add(listener);
    const before = bytesOn(device);
    await device.scope(async () => {
      const middle = ops.exp(x);
      const broken = device.record(ops.add(middle, 1).detach(), {
        op: "broken",
        inputs: [middle],
        saved: [middle],
        backward: () => {
          throw new RangeError("on purpose");
        },
      });
      await expect(ops.sum(ops.mul(broken, broken)).backward()).rejects.toThrow("on purpose");
    });
    expect(calls).toEqual(["failed"]);
    expect(x.grad).toBeUndefined();
    expect(bytesOn(device)).toBe(before);
    await ops.sum(x).backward();
    expect(calls).toEqual(["failed", "end"]);
    device.backwardListeners.delete(listener);
  });

  test("a long chain neither overflows the stack nor holds memory when dropped", async () => {
    using x = leaf(1);
    const before = bytesOn(device);
    await device.scope(async () => {
      let y = ops.add(x, 0);
      for (let i = 0; i < 20_000; i++) {
        const next = ops.tanh(y);
        y.dispose();
        y = next;
      }
      y.dispose();
      expect(bytesOn(device)).toBe(before);
    });
  });

  test("regions are entered before their nodes run and left when the walk is through with them", async () => {
    const calls: string[] = [];
    const region = (name: string) => ({
      enterBackward: async () => void calls.push(`enter ${name}`),
      leaveBackward: async () => void calls.push(`leave ${name}`),
    });
    using x = leaf(1);
    let y = x;
    for (const name of ["a", "b"]) {
      device.region = region(name);
      y = ops.tanh(ops.mul(y, 2));
    }
    device.region = undefined;
    await ops.mul(y, 1).backward();
    expect(calls).toEqual(["enter b", "leave b", "enter a", "leave a"]);
  });
});

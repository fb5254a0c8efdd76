import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { StateError } from "../../../core/contracts/errors.ts";
import type { Device } from "../../../core/tensor/device.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { bytesOn, testDevice, valuesOf } from "./gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

/** Two layers and a loss; touches views, copies, saved inputs and saved outputs. */
function forward(x: Tensor, w: Tensor): Tensor {
  const hidden = ops.gelu(ops.matmul(x, w));
  const turned = ops.transpose(ops.reshape(hidden, [2, 2, 4]), 0, 1);
  return ops.mean(ops.softmax(ops.add(turned, 1)));
}

function leaves(): { x: Tensor; w: Tensor } {
  return { x: device.randn([4, 4]), w: device.randn([4, 4], { requiresGrad: true }) };
}

describe("a training step", () => {
  test("returns memory to the same bytes, and equal steps have equal peaks", async () => {
    const start = bytesOn(device);
    const { x, w } = leaves();
    const after: number[] = [];
    const peaks: number[] = [];
    for (let step = 0; step < 4; step++) {
      device.backend.memory.resetPeak();
      const loss = forward(x, w);
      await loss.backward();
      expect(Number.isFinite(await loss.item())).toBe(true);
      w.grad!.dispose();
      w.grad = undefined;
      after.push(bytesOn(device));
      peaks.push(device.backend.memory.report().peakTotal);
    }
    expect(new Set(after).size).toBe(1);
    // The first step has no earlier loss lying around.
    expect(new Set(peaks.slice(1)).size).toBe(1);
    expect(after[0]! - start).toBe(x.byteLength + w.byteLength + 4);
    x.dispose();
    w.dispose();
  });

  test("inside a scope leaves nothing but what the scope returns", async () => {
    const { x, w } = leaves();
    const before = bytesOn(device);
    const kept = await device.scope(async () => {
      const loss = forward(x, w);
      await loss.backward();
      return { parts: [loss], step: 1 };
    });
    expect(bytesOn(device)).toBe(before + w.grad!.byteLength + 4);
    kept.parts[0]!.dispose();
    x.dispose();
    w.dispose();
    expect(bytesOn(device)).toBe(before - x.byteLength - w.byteLength);
  });

  test("counts gradients of leaves as gradients, also after accumulation", async () => {
    using x = device.randn([8], { requiresGrad: true });
    const gradientBytes = () => device.backend.memory.report().current.gradient;
    for (let micro = 0; micro < 3; micro++) {
      await ops.sum(ops.mul(x, x)).backward();
      expect(gradientBytes()).toBe(32);
    }
    // A contribution that others hold too is copied.
    await ops.sum(ops.add(x, ops.reshape(x, [8]))).backward();
    expect(gradientBytes()).toBe(32);
    x.dispose();
    expect(gradientBytes()).toBe(0);
  });
});

describe("a forward pass without backward", () => {
  test("leaks nothing when its scope ends, recorded or not, failing or not", async () => {
    const { x, w } = leaves();
    const before = bytesOn(device);
    await device.scope(() => {
      forward(x, w);
    });
    expect(bytesOn(device)).toBe(before);
    await device.scope(() => device.noGrad(() => void forward(x, w)));
    expect(bytesOn(device)).toBe(before);
    const failing = device.scope(() => {
      forward(x, w);
      throw new RangeError("on purpose");
    });
    await expect(failing).rejects.toThrow("on purpose");
    expect(bytesOn(device)).toBe(before);
    x.dispose();
    w.dispose();
  });

  test("holds only what the backward pass would read", async () => {
    using x = device.randn([64], { requiresGrad: true });
    await device.scope(() => {
      const before = bytesOn(device);
      const shifted = ops.add(x, 1);
      const out = ops.tanh(shifted);
      shifted.dispose();
      expect(bytesOn(device)).toBe(before + out.byteLength);
    });
  });
});

describe("keep, dispose, using", () => {
  test("what is kept outlives its scope and the backward pass", async () => {
    const { x, w } = leaves();
    const hidden = await device.scope(() => ops.matmul(x, w).keep() && undefined);
    expect(hidden).toBeUndefined();
    using kept = ops.matmul(x, w).keep();
    await ops.sum(kept).backward();
    expect((await valuesOf(kept)).length).toBe(16);
    x.dispose();
    w.dispose();
  });

  test("using ends a tensor with its block; disposing twice is harmless", () => {
    const before = bytesOn(device);
    {
      using x = device.zeros([16]);
      expect(bytesOn(device)).toBe(before + x.byteLength);
      x.dispose();
      x.dispose();
    }
    expect(bytesOn(device)).toBe(before);
  });

  test("a view and its source share memory until the last goes", async () => {
    const before = bytesOn(device);
    const x = device.tensor([1, 2, 3, 4]);
    const view = ops.reshape(x, [2, 2]).keep();
    x.dispose();
    expect(await valuesOf(view)).toEqual([1, 2, 3, 4]);
    view.dispose();
    expect(bytesOn(device)).toBe(before);
  });

  test("use after release throws a StateError that says what to do", async () => {
    const x = device.zeros([2, 3]);
    x.dispose();
    expect(() => ops.add(x, 1)).toThrow(StateError);
    await expect(x.data()).rejects.toThrow(
      "A tensor of shape [2, 3] was released: results live until their backward pass, scope or module call ends, call keep() to hold one longer",
    );
  });

  test("a scope inside another gives what it returns to the outer one", async () => {
    const before = bytesOn(device);
    await device.scope(async () => {
      const inner = await device.scope(() => ops.add(device.ones([2]), 1));
      expect(await valuesOf(inner)).toEqual([2, 2]);
      expect(bytesOn(device)).toBe(before + inner.byteLength);
    });
    expect(bytesOn(device)).toBe(before);
  });

  test("scopes that overlap are refused", async () => {
    const other = await testDevice();
    const gate = Promise.withResolvers<void>();
    const first = other.scope(() => gate.promise);
    const second = other.scope(async () => {});
    gate.resolve();
    await second;
    await first;
    const late = Promise.withResolvers<void>();
    const outer = other.scope(() => Promise.resolve());
    const open = other.scope(() => late.promise);
    await expect(outer).rejects.toThrow("calls on one device must not overlap");
    late.resolve();
    await open.catch(() => {});
    await other.backend.dispose();
  });
});

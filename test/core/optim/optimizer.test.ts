import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { ConfigError, ShapeError, StateError } from "../../../core/contracts/errors.ts";
import { constant } from "../../../core/nn/init.ts";
import { Parameter } from "../../../core/nn/parameter.ts";
import { AdamW, SGD } from "../../../core/optim/mod.ts";
import type { Device } from "../../../core/tensor/device.ts";
import type { Shape } from "../../../core/tensor/shape.ts";
import { testDevice, valuesOf } from "../tensor/gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

async function parameterOf(shape: Shape, name = "w"): Promise<Parameter> {
  const parameter = new Parameter(shape, constant(1));
  parameter.name = name;
  await parameter.materialize(device);
  return parameter;
}

function give(parameter: Parameter, value: number): void {
  const grad = device.full(parameter.local.shape, value, { dtype: parameter.dtype });
  parameter.accumulateGrad(grad);
}

function bytes(): { gradient: number; optimizer: number } {
  const { gradient, optimizer } = device.backend.memory.report().current;
  return { gradient, optimizer };
}

describe("step", () => {
  test("skips parameters without a gradient, and makes no state for them", async () => {
    const [a, b] = [await parameterOf([2]), await parameterOf([2])];
    using optimizer = new SGD([a, b], { lr: 0.5 });
    give(a, 1);
    optimizer.step();
    expect(await valuesOf(a)).toEqual([0.5, 0.5]);
    expect(await valuesOf(b)).toEqual([1, 1]);
    expect(optimizer.state(a)!.step).toBe(1);
    expect(optimizer.state(b)).toBeUndefined();
    optimizer.zeroGrad();
  });

  test("updates an empty shard without complaint", async () => {
    const a = await parameterOf([0, 3]);
    using optimizer = new AdamW([a]);
    give(a, 1);
    optimizer.step();
    expect(optimizer.state(a)!.step).toBe(1);
    optimizer.zeroGrad();
  });

  test("works on what a sharding version gives as local, and tells it", async () => {
    const parameter = new Parameter([4], constant(1));
    const local = device.full([2], 1).keep();
    let updates = 0;
    parameter.manage({
      unit: "root",
      local,
      pieces: () => [{ offsets: [0], sizes: [2], localOffset: 0 }],
      group: { rank: 0, size: 2 } as never,
      updated: () => void updates++,
      materialized: true,
      materialize: async () => {},
    });
    using optimizer = new AdamW([parameter], { lr: 0.5, weightDecay: 0 });
    parameter.grad = device.full([2], 3);
    optimizer.step();
    expect(updates).toBe(1);
    for (const value of await valuesOf(local)) expect(value).toBeCloseTo(0.5, 5);
    expect(optimizer.state(parameter)!.tensors.map(({ key, tensor }) => [key, tensor.shape])).toEqual([
      ["exp_avg", [2]],
      ["exp_avg_sq", [2]],
    ]);
    optimizer.zeroGrad();
    local.dispose();
  });

  test("refuses a gradient of another size by the parameter's name", async () => {
    const a = await parameterOf([2], "h.0.weight");
    using optimizer = new SGD([a]);
    a.grad = device.zeros([3]);
    expect(() => optimizer.step()).toThrow(ShapeError);
    expect(() => optimizer.step()).toThrow(
      'parameter "h.0.weight" holds float32 [2], its gradient float32 [3]',
    );
    optimizer.zeroGrad();
  });

  test("refuses state from before the model was sharded", async () => {
    const parameter = await parameterOf([4]);
    using optimizer = new AdamW([parameter]);
    optimizer.initState();
    parameter.manage({
      unit: "root",
      local: device.full([2], 1),
      pieces: () => [],
      group: { rank: 0, size: 2 } as never,
      updated: () => {},
      materialized: true,
      materialize: async () => {},
    });
    parameter.grad = device.full([2], 3);
    expect(() => optimizer.step()).toThrow(StateError);
  });

  test("uses each group's own values, and changes to them", async () => {
    const [a, b] = [await parameterOf([1]), await parameterOf([1])];
    using optimizer = new SGD([{ params: [a] }, { params: [b], lr: 0.25, weightDecay: 1 }], { lr: 0.5 });
    give(a, 1);
    give(b, 1);
    optimizer.step();
    expect(await valuesOf(a)).toEqual([0.5]);
    expect(await valuesOf(b)).toEqual([0.5]);
    optimizer.groups[0]!.lr = 0;
    optimizer.step();
    expect(await valuesOf(a)).toEqual([0.5]);
    optimizer.zeroGrad();
  });

  test("momentum that is turned on later gets its state then, and turned off leaves it alone", async () => {
    const a = await parameterOf([1]);
    using optimizer = new SGD([a], { lr: 0.125 });
    give(a, 1);
    optimizer.step();
    optimizer.groups[0]!.momentum = 0.5;
    optimizer.step();
    expect(await valuesOf(a)).toEqual([0.75]);
    optimizer.step();
    expect(await valuesOf(a)).toEqual([0.5625]);
    optimizer.groups[0]!.momentum = 0;
    optimizer.step();
    expect(await valuesOf(a)).toEqual([0.4375]);
    optimizer.zeroGrad();
  });
});

describe("memory", () => {
  test("zeroGrad frees gradients, or zeroes them when asked to; dispose frees the state", async () => {
    const a = await parameterOf([8]);
    const before = bytes();
    const optimizer = new AdamW([a]);
    give(a, 1);
    expect(bytes().gradient).toBe(before.gradient + 32);
    optimizer.step();
    expect(bytes().optimizer).toBe(before.optimizer + 64);
    optimizer.zeroGrad({ setToNone: false });
    expect(new Set(await valuesOf(a.grad!))).toEqual(new Set([0]));
    optimizer.zeroGrad();
    expect(a.grad).toBeUndefined();
    expect(bytes().gradient).toBe(before.gradient);
    optimizer.dispose();
    expect(bytes()).toEqual(before);
  });
});

describe("what a checkpoint needs", () => {
  test("state and values moved to a fresh optimizer continue to the bit", async () => {
    const [a, b] = [await parameterOf([3]), await parameterOf([3])];
    using first = new AdamW([a], { lr: 0.1 });
    for (const g of [1, -2]) {
      give(a, g);
      first.step();
      first.zeroGrad();
    }
    first.groups[0]!.lr = 0.05;
    device.backend.write(b.span, await a.data());
    using second = new AdamW([b]);
    second.initState();
    expect(second.state(b)!.step).toBe(0);
    for (const [i, { key, tensor }] of first.state(a)!.tensors.entries()) {
      const target = second.state(b)!.tensors[i]!;
      expect(target.key).toBe(key);
      device.backend.write(target.tensor.span, await tensor.data());
    }
    second.state(b)!.step = first.state(a)!.step;
    second.loadGroupValues(JSON.parse(JSON.stringify(first.groupValues())));
    for (const [optimizer, parameter] of [
      [first, a],
      [second, b],
    ] as const) {
      give(parameter, 0.7);
      optimizer.step();
      optimizer.zeroGrad();
    }
    expect(await b.data()).toEqual(await a.data());
  });

  test("SGD's restored momentum is not overwritten by the next gradient", async () => {
    const a = await parameterOf([1]);
    using optimizer = new SGD([a], { lr: 1, momentum: 0.5 });
    optimizer.initState();
    const state = optimizer.state(a)!;
    device.backend.kernels.fill(state.tensors[0]!.tensor.span, 4);
    state.step = 3;
    give(a, 0);
    optimizer.step();
    expect(await valuesOf(a)).toEqual([-1]);
    optimizer.zeroGrad();
  });

  test("initState makes zeroed state for learnable parameters, and keeps what there is", async () => {
    const [a, frozen] = [await parameterOf([2]), await parameterOf([2])];
    frozen.requiresGrad = false;
    using optimizer = new AdamW([a, frozen]);
    give(a, 1);
    optimizer.step();
    const before = await valuesOf(optimizer.state(a)!.tensors[0]!.tensor);
    optimizer.initState();
    expect(await valuesOf(optimizer.state(a)!.tensors[0]!.tensor)).toEqual(before);
    expect(optimizer.state(frozen)).toBeUndefined();
    optimizer.zeroGrad();
  });

  test("group values that do not fit are refused, and nothing changes", async () => {
    const [a, b] = [await parameterOf([1]), await parameterOf([1])];
    using optimizer = new SGD([{ params: [a] }, { params: [b] }], { lr: 0.5 });
    const good = optimizer.groupValues();
    for (const bad of [undefined, {}, [good[0]], [good[0], { ...good[1], lr: -1 }], [good[0], { lr: 1 }]]) {
      expect(() => optimizer.loadGroupValues(bad)).toThrow(ConfigError);
    }
    expect(optimizer.groupValues()).toEqual(good);
  });
});

describe("options", () => {
  test("values out of range are refused by name", async () => {
    const a = await parameterOf([1]);
    for (const [options, message] of [
      [{ lr: -1 }, 'Making AdamW failed: group 0, option "lr": -1, allowed are numbers >= 0'],
      [{ lr: Number.NaN }, 'option "lr"'],
      [{ betas: [0.9, 1] }, 'option "betas.1": 1, allowed are numbers from 0 to below 1'],
      [{ eps: -1e-8 }, 'option "eps"'],
      [{ weightDecay: Number.POSITIVE_INFINITY }, 'option "weightDecay"'],
      [{ learningRate: 1 }, 'option "learningRate"'],
    ] as const) {
      expect(() => new AdamW([a], options as object)).toThrow(ConfigError);
      expect(() => new AdamW([a], options as object)).toThrow(message);
    }
    expect(() => new SGD([a], { nesterov: true })).toThrow("nesterov needs momentum > 0 and dampening 0");
    expect(() => new SGD([a], { nesterov: true, momentum: 0.9, dampening: 0.1 })).toThrow(ConfigError);
    expect(() => new SGD([{ params: [a], momentum: -1 }])).toThrow('group 0, option "momentum"');
  });

  test("no parameters, and one parameter twice, are refused", async () => {
    const a = await parameterOf([1], "w");
    expect(() => new SGD([])).toThrow("no parameters given");
    expect(() => new SGD([a, a])).toThrow('parameter "w" of shape [1] was given twice');
    expect(() => new SGD([{ params: [a] }, { params: [a] }])).toThrow("given twice");
  });
});

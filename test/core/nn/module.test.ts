import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { StateError } from "../../../core/contracts/errors.ts";
import * as nn from "../../../core/nn/mod.ts";
import type { Device } from "../../../core/tensor/device.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { bytesOn, testDevice, valuesOf } from "../tensor/gradcheck.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});
afterAll(() => device.backend.dispose());

/** Shares one parameter between two children, and has an array of modules. */
class Shared extends nn.Module<[Tensor], Tensor> {
  readonly first: nn.Linear = new nn.Linear(4, 4);
  readonly layers: nn.Linear[] = [new nn.Linear(4, 4), new nn.Linear(4, 4, { bias: false })];
  readonly alias: nn.Linear = this.first;

  override async forward(x: Tensor): Promise<Tensor> {
    let y = await this.first.call(x);
    for (const layer of this.layers) y = ops.tanh(await layer.call(y));
    return await this.alias.call(y);
  }
}

describe("modules", () => {
  test("name their parameters in order of assignment, each once", async () => {
    const model = new Shared();
    const names = ["first.weight", "first.bias", "layers.0.weight", "layers.0.bias", "layers.1.weight"];
    expect([...model.namedParameters()].map(([name]) => name)).toEqual(names);
    await model.to(device);
    expect(model.parameters().map((parameter) => parameter.name)).toEqual(names);
    expect([...model.namedModules()].map(([name]) => name)).toEqual(["", "first", "layers.0", "layers.1"]);
  });

  test("begin with values that depend on the seed and the name alone", async () => {
    const model = await new Shared().to(device);
    const twin = await new Shared().to(device);
    for (const [i, parameter] of model.parameters().entries()) {
      expect(await valuesOf(parameter)).toEqual(await valuesOf(twin.parameters()[i]!));
    }
    const other = await testDevice(2);
    const stranger = await new Shared().to(other);
    expect(await valuesOf(stranger.first.weight)).not.toEqual(await valuesOf(model.first.weight));
    await other.backend.dispose();
  });

  test("keep values that they have when put on a device again", async () => {
    const model = await new Shared().to(device);
    device.backend.kernels.fill(model.first.weight.span, 7);
    await model.to(device);
    expect(new Set(await valuesOf(model.first.weight))).toEqual(new Set([7]));
  });

  test("free what a call makes and does not return, and equal calls have equal peaks", async () => {
    const model = await new Shared().to(device);
    using x = device.ones([2, 4]);
    const { memory } = device.backend;
    const before = bytesOn(device);
    const peaks = new Set<number>();
    for (let i = 0; i < 3; i++) {
      memory.resetPeak();
      using y = await device.noGrad(() => model.call(x));
      expect(bytesOn(device)).toBe(before + y.byteLength);
      peaks.add(memory.report().peakTotal);
    }
    expect(peaks.size).toBe(1);
  });

  test("a shared parameter collects the gradients of all its uses", async () => {
    const model = await new Shared().to(device);
    using x = device.ones([2, 4]);
    const before = bytesOn(device);
    await device.scope(async () => ops.mean(await model.call(x)).backward());
    let grads = 0;
    for (const parameter of model.parameters()) {
      expect(parameter.grad!.shape).toEqual(parameter.shape);
      grads += parameter.grad!.byteLength;
      parameter.grad!.dispose();
      parameter.grad = undefined;
    }
    expect(grads).toBeGreaterThan(0);
    expect(bytesOn(device)).toBe(before);
  });

  test("wrappers stand around the call, later ones outside", async () => {
    const model = new nn.ReLU();
    const calls: string[] = [];
    for (const name of ["inner", "outer"]) {
      model.wrapCall(async (args, next) => {
        calls.push(`before ${name}`);
        const result = await next(args);
        calls.push(`after ${name}`);
        return result;
      });
    }
    using x = device.tensor([-1, 1]);
    using y = await model.call(x);
    expect(await valuesOf(y)).toEqual([0, 1]);
    expect(calls).toEqual(["before outer", "before inner", "after inner", "after outer"]);
  });

  test("train and eval reach every module below", () => {
    const model = new Shared();
    model.eval();
    expect([...model.modules()].every((module) => !module.training)).toBe(true);
    model.train();
    expect([...model.modules()].every((module) => module.training)).toBe(true);
  });

  test("a parameter without values says how to get them", () => {
    const model = new Shared();
    model.nameParameters();
    expect(() => model.first.weight.span).toThrow(StateError);
    expect(() => model.first.weight.span).toThrow(
      'Parameter "first.weight" of shape [4, 4] has no values yet: call await model.to(device) first',
    );
    expect(() => model.first.weight.device).toThrow("is not on a device yet");
  });
});

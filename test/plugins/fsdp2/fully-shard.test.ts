import { describe, expect, test } from "bun:test";
import { ConfigError, ShapeError, StateError } from "../../../core/contracts/errors.ts";
import { unitOf, unitsBelow } from "../../../core/engine/shard-module.ts";
import { constant, Linear, Module, Parameter } from "../../../core/nn/mod.ts";
import { initDeviceMesh } from "../../../core/runtime/device-mesh.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../../core/tensor/tensor.ts";
import { fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { Stack } from "../../support/models.ts";
import { runRanks } from "../../support/ranks.ts";

const sizes = { layers: 2, features: 3, width: 4, hidden: 5 };

describe("fullyShard", () => {
  test("makes one unit of the parameters that no earlier call took, and changes neither class nor names", async () => {
    await runRanks(2, async ({ mesh }) => {
      const model = new Stack(sizes);
      const names = [...model.namedParameters()].map(([name]) => name);
      for (const block of model.blocks) expect<unknown>(fullyShard(block, { mesh })).toBe(block);
      fullyShard(model, { mesh });
      expect([...model.namedParameters()].map(([name]) => name)).toEqual(names);
      expect(model.constructor.name).toBe("Stack");
      expect(unitsBelow(model).length).toBe(3);
      expect(unitOf(model)!.parameters).toEqual([
        model.inner.weight,
        model.inner.bias!,
        model.outer.weight,
        model.outer.bias!,
      ]);
    });
  });

  test("gives every rank its rows, and nothing to ranks beyond the last row", async () => {
    for (const worldSize of [2, 3, 4, 7]) {
      await runRanks(worldSize, async ({ mesh, device, rank }) => {
        const model = fullyShard(new Linear(3, 5), { mesh });
        await model.to(device);
        const chunk = Math.ceil(5 / worldSize);
        const rows = Math.max(0, Math.min(5 - rank * chunk, chunk));
        expect(model.weight.local.shape).toEqual([rows, 3]);
        expect(model.bias!.local.shape).toEqual([rows]);
        expect(model.weight.shape).toEqual([5, 3]);
      });
    }
  });

  test("shares one tied parameter in a unit: one shard, both uses in its gradient", async () => {
    class Tied extends Module<[x: Tensor], Tensor> {
      readonly first: Parameter = new Parameter([5, 5], constant(0.5));
      readonly second: Parameter = this.first;
      override forward(x: Tensor): Tensor {
        return ops.linear(ops.linear(x, this.first), this.second);
      }
    }
    await runRanks(2, async ({ mesh, device, rank }) => {
      const model = fullyShard(new Tied(), { mesh });
      await model.to(device);
      expect(unitOf(model)!.parameters.length).toBe(1);
      await device.scope(async () => {
        await ops.sum(await model.call(device.ones([1, 5]))).backward();
      });
      // d/dW sum(W W x) at W = 1/2: 2.5 from the outer use and 2.5 from the inner one.
      const gradient = (await model.first.grad!.data()) as Float32Array;
      expect(gradient.length).toBe(rank === 0 ? 15 : 10);
      for (const value of gradient) expect(value).toBeCloseTo(5, 5);
    });
  });

  test("refuses to shard a module twice", async () => {
    await runRanks(1, async ({ mesh }) => {
      const model = fullyShard(new Linear(2, 2), { mesh });
      expect(() => fullyShard(model, { mesh })).toThrow(StateError);
    });
  });

  test("refuses a mesh of three dims and a reshardAfterForward that is not a boolean", async () => {
    await runRanks(1, async ({ collective, mesh }) => {
      const grid = await initDeviceMesh(collective, [1, 1, 1]);
      expect(() => fullyShard(new Linear(2, 2), { mesh: grid })).toThrow(ConfigError);
      const options = { mesh, reshardAfterForward: "yes" as never };
      expect(() => fullyShard(new Linear(2, 2), options)).toThrow(/reshardAfterForward "yes"/);
    });
  });

  test("refuses a scalar parameter", async () => {
    class Scalar extends Module<[], void> {
      readonly scale: Parameter = new Parameter([], constant(1));
      override forward(): void {}
    }
    await runRanks(1, async ({ mesh }) => {
      expect(() => fullyShard(new Scalar(), { mesh })).toThrow(ShapeError);
    });
  });

  test("asks for the root to run first", async () => {
    await runRanks(1, async ({ mesh, device }) => {
      const model = new Stack(sizes);
      for (const block of model.blocks) fullyShard(block, { mesh });
      fullyShard(model, { mesh });
      await model.to(device);
      await device.scope(async () => {
        await model.blocks[0]!.call(device.zeros([1, 4]));
      });
      await expect(model.call(device.zeros([1, 3]))).rejects.toThrow(/call the root first/);
    });
  });

  test("names the parameters that have no values when the model was not put on a device", async () => {
    await runRanks(1, async ({ mesh, device }) => {
      const model = fullyShard(new Linear(2, 2), { mesh });
      await expect(model.call(device.zeros([1, 2]))).rejects.toThrow(
        /no values yet.*model\.to\(device\).*"weight", "bias"/,
      );
    });
  });
});

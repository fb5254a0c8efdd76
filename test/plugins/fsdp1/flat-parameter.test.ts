import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { Linear, Module, type Parameter } from "../../../core/nn/mod.ts";
import * as ops from "../../../core/tensor/ops/mod.ts";
import { FlatParameter, joined } from "../../../plugins/fsdp1/flat-parameter.ts";
import { FullyShardedDataParallel } from "../../../plugins/fsdp1/mod.ts";
import { runRanks } from "../../support/ranks.ts";

describe("joined gradients", () => {
  test("are the parts one after the other, zeros for those that are missing, whether they adjoin in memory or not", async () => {
    await runRanks(1, async ({ device }) => {
      const part = fc.record({ numel: fc.integer({ min: 0, max: 5 }), missing: fc.boolean() });
      const property = fc.asyncProperty(
        fc.array(part, { minLength: 1, maxLength: 6 }),
        fc.boolean(),
        async (given, adjoin) => {
          if (given.every(({ missing }) => missing)) return;
          const total = given.reduce((sum, { numel }) => sum + numel, 0);
          using run = device.tensor(Float32Array.from({ length: total }, (_, i) => i + 1));
          let at = 0;
          const parts = given.map(({ numel, missing }) => {
            using view = run.alias([numel], at);
            at += numel;
            const grad = missing ? undefined : adjoin ? view.alias() : device.copyOf(view);
            return { grad, numel };
          });
          using whole = joined(parts, total);
          const wanted = given.flatMap(({ numel, missing }, i) => {
            const start = given.slice(0, i).reduce((sum, each) => sum + each.numel, 0);
            return Array.from({ length: numel }, (_, k) => (missing ? 0 : start + k + 1));
          });
          expect(Array.from(await whole.data(), Number)).toEqual(wanted);
          const complete = given.every(({ numel, missing }) => numel === 0 || !missing);
          // Nothing is copied where nothing must be.
          if (adjoin && complete && total > 0) expect(whole.storage).toBe(run.storage);
          for (const { grad } of parts) grad?.dispose();
        },
      );
      await fc.assert(property, { seed: 3, numRuns: 200 });
    });
  });
});

describe("a flat parameter", () => {
  test("is its unit's memory: what is written to it is the parameters' own, and the other way round", async () => {
    await runRanks(2, async ({ device, mesh }) => {
      const linear = new Linear(3, 2);
      const fsdp = await new FullyShardedDataParallel(linear, { mesh }).to(device);
      const [flat] = fsdp.parameters() as [Parameter];
      expect(flat).toBeInstanceOf(FlatParameter);
      expect(flat.local.storage).toBe(linear.weight.local.storage);
      device.backend.kernels.fill(flat.local.span, 2);
      flat.updated();
      const { weight, bias } = await fsdp.stateDict();
      expect([...weight!.data, ...bias!.data].map(Number)).toEqual(new Array(8).fill(2));
    });
  });

  test("lets its memory go, and takes new memory", async () => {
    await runRanks(2, async ({ device, mesh }) => {
      const fsdp = new FullyShardedDataParallel(new Linear(3, 2), { mesh });
      const before = device.backend.memory.report().currentTotal;
      await fsdp.to(device);
      await device.scope(async () => void (await fsdp.call(device.ones([1, 3]))));
      const dict = await fsdp.stateDict();
      fsdp.dispose();
      expect(device.backend.memory.report().currentTotal).toBe(before);
      // Others on the device are not disturbed.
      const other = await new FullyShardedDataParallel(new Linear(3, 2), { mesh }).to(device);
      const step = (model: typeof other) =>
        device.scope(async () => void (await ops.mean(await model.call(device.ones([1, 3]))).backward()));
      await step(other);
      await fsdp.to(device);
      expect(await fsdp.stateDict()).toEqual(dict);
      await step(fsdp);
      expect(fsdp.parameters()[0]!.grad).toBeDefined();
    });
  });

  test("cannot stand for parameters that a module holds in an array", async () => {
    class Rows extends Module<[], void> {
      readonly rows: readonly Parameter[] = [new Linear(2, 2).weight];
      override forward(): void {}
    }
    await runRanks(1, async ({ mesh }) => {
      expect(() => new FullyShardedDataParallel(new Rows(), { mesh })).toThrow(ConfigError);
      new FullyShardedDataParallel(new Rows(), { mesh, useOrigParams: true });
    });
  });
});

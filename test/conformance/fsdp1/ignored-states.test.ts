/** PyTorch's test_fsdp_ignored_modules: what stays whole on every rank. */
import { describe, expect, test } from "bun:test";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { alwaysWrap } from "../../../core/engine/wrap-policy.ts";
import { SGD } from "../../../core/optim/mod.ts";
import { FullyShardedDataParallel } from "../../../plugins/fsdp1/mod.ts";
import { runRanks } from "../../support/ranks.ts";
import { pass, stack, wrapBlocks } from "./harness.ts";

/** Elements of the model: inner 36, each block 97, outer 7. */
const TOTAL = 36 + 2 * 97 + 7;

describe("ignored modules and parameters", () => {
  test("are in no flat parameter, with all that is below them, and lie whole on every rank", async () => {
    await runRanks(2, async ({ device, mesh }) => {
      const managed = async (options: object) => {
        const model = stack();
        const given = typeof options === "function" ? options(model) : options;
        const fsdp = await new FullyShardedDataParallel(model, {
          mesh,
          autoWrapPolicy: wrapBlocks,
          ...given,
        }).to(device);
        return {
          model,
          numel: fsdp.handles.reduce((sum, { numel, paddingNumel }) => sum + numel - paddingNumel, 0),
        };
      };
      expect((await managed({})).numel).toBe(TOTAL);
      for (const useOrigParams of [true, false]) {
        const one = await managed((model: ReturnType<typeof stack>) => ({
          useOrigParams,
          ignoredModules: [model.blocks[0]!],
        }));
        expect(one.numel).toBe(TOTAL - 97);
        expect(one.model.blocks[0]!.up.weight.local.shape).toEqual([7, 6]);
        const two = await managed((model: ReturnType<typeof stack>) => ({
          useOrigParams,
          ignoredStates: [model.outer],
        }));
        expect(two.numel).toBe(TOTAL - 7);
        const three = await managed((model: ReturnType<typeof stack>) => ({
          useOrigParams,
          ignoredStates: [model.inner.weight, model.blocks[1]!.up.bias],
        }));
        expect(three.numel).toBe(TOTAL - 30 - 7);
      }
    });
  });

  test("train, as each rank sees to it, beside the sharded ones, and are in state dicts", async () => {
    const run = (worldSize: number) =>
      runRanks(worldSize, async (rank) => {
        const model = stack();
        const options = { mesh: rank.mesh, autoWrapPolicy: wrapBlocks, ignoredModules: [model.outer] };
        const fsdp = await new FullyShardedDataParallel(model, options).to(rank.device);
        const optimizer = new SGD(fsdp.parameters(), { lr: 0.1, momentum: 0.9 });
        for (let step = 0; step < 2; step++) {
          await pass(rank, fsdp, step);
          // Nobody but the user reduces them.
          for (const { grad } of model.outer.parameters()) {
            const values = (await grad!.data()) as Float32Array;
            await rank.collective.allReduce(values, "avg", "float32").wait();
            grad!.device.backend.write(grad!.span, values);
          }
          optimizer.step();
          optimizer.zeroGrad();
        }
        const dict = await fsdp.stateDict();
        await fsdp.loadStateDict(dict);
        const optim = await fsdp.optimStateDict(optimizer);
        await fsdp.loadOptimStateDict(optimizer, optim);
        expect(Object.keys(optim.state)).toContain("outer.weight");
        return dict;
      });
    const [alone] = await run(1);
    for (const dict of await run(3)) {
      expect(Object.keys(dict)).toEqual([...stack().namedParameters()].map(([name]) => name));
      for (const [name, { data }] of Object.entries(dict)) {
        for (const [i, value] of Array.from(data, Number).entries()) {
          expect(value).toBeCloseTo(Number(alone![name]!.data[i]), 5);
        }
      }
    }
  });

  test("may differ between ranks in how they are named, while what is sharded is the same", async () => {
    const losses = await runRanks(2, async (rank) => {
      const model = stack();
      const { inner } = model;
      const ignored = rank.rank === 0 ? { ignoredModules: [inner] } : { ignoredStates: inner.parameters() };
      const fsdp = new FullyShardedDataParallel(model, {
        mesh: rank.mesh,
        autoWrapPolicy: wrapBlocks,
        ...ignored,
      });
      return await pass(rank, await fsdp.to(rank.device), 0);
    });
    for (const loss of losses) expect(Number.isFinite(loss)).toBe(true);
  });

  test("are refused when given twice, mixed, or sharded already; nothing is left of a module that is ignored itself", async () => {
    await runRanks(1, async ({ mesh }) => {
      const model = stack();
      const shard = (options: object) => () => new FullyShardedDataParallel(model, { mesh, ...options });
      const { inner, outer } = model;
      expect(shard({ ignoredModules: [inner], ignoredStates: [outer] })).toThrow(ConfigError);
      expect(shard({ ignoredStates: [inner, outer.weight] })).toThrow(
        /must all be modules or all be parameters/,
      );
      expect(shard({ ignoredModules: [outer.weight] })).toThrow(/put them into ignoredStates/);
      expect(shard({ ignoredModules: ["inner"] })).toThrow(ConfigError);
      new FullyShardedDataParallel(inner, { mesh });
      expect(shard({ ignoredModules: [inner] })).toThrow(/Linear that is sharded already/);

      const warnings: string[] = [];
      const whole = stack();
      const options = { mesh, ignoredModules: [whole], autoWrapPolicy: alwaysWrap };
      const fsdp = new FullyShardedDataParallel(whole, {
        ...options,
        onWarning: (text) => warnings.push(text),
      });
      expect(fsdp.handles).toEqual([]);
      expect(warnings).toEqual([expect.stringContaining("the module itself is ignored")]);
    });
  });
});

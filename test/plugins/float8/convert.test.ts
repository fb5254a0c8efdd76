import { describe, expect, test } from "bun:test";
import { ConfigError, StateError } from "../../../core/contracts/errors.ts";
import { shardModule } from "../../../core/engine/shard-module.ts";
import { Conv1D, Embedding, LayerNorm, Linear, Sequential } from "../../../core/nn/mod.ts";
import { convertToFloat8Training, type Float8Recipe } from "../../../plugins/float8/mod.ts";
import { flatShard } from "../../../plugins/fsdp1/flat-shard.ts";
import { FullyShardedDataParallel } from "../../../plugins/fsdp1/mod.ts";
import { fullyShard } from "../../../plugins/fsdp2/mod.ts";
import { Stack } from "../../support/models.ts";
import { runRanks } from "../../support/ranks.ts";

const stack = (): Stack => new Stack({ layers: 2, features: 3, width: 4, hidden: 5 });

/** Names of the parameters that gather other bytes than they store. */
function extended(model: ReturnType<typeof stack> | Sequential): string[] {
  return [...model.namedParameters()].flatMap(([name, { allGatherExtension }]) =>
    allGatherExtension === undefined ? [] : [name],
  );
}

describe("convertToFloat8Training", () => {
  test("takes the weights of Linear and Conv1D, and nothing else", () => {
    const model = new Sequential(new Linear(4, 4), new LayerNorm(4), new Conv1D(4, 8), new Linear(0, 3));
    expect(convertToFloat8Training(model)).toBe(model);
    expect(extended(model)).toEqual(["0.weight", "2.weight"]);
  });

  test("asks the filter for every linear layer by its name", () => {
    const model = stack();
    const asked: string[] = [];
    convertToFloat8Training(model, {
      moduleFilterFn: (module, name) => {
        expect(module).toBeInstanceOf(Linear);
        asked.push(name);
        return name.endsWith("up");
      },
    });
    expect(asked).toEqual(["inner", "blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down", "outer"]);
    expect(extended(model)).toEqual(["blocks.0.up.weight", "blocks.1.up.weight"]);
  });

  test("refuses what it cannot honour, by name, and changes nothing then", async () => {
    const model = stack();
    expect(() => convertToFloat8Training(model, { recipe: "e5m2" as Float8Recipe })).toThrow(
      new ConfigError('Converting to float8 failed: recipe "e5m2", allowed are tensorwise, rowwise'),
    );
    expect(() => convertToFloat8Training(new Embedding(3, 4))).toThrow("Embedding has no Linear or Conv1D");
    expect(() => convertToFloat8Training(model, { moduleFilterFn: () => false })).toThrow(ConfigError);
    expect(extended(model)).toEqual([]);
    convertToFloat8Training(model, { moduleFilterFn: (_, name) => name === "outer" });
    expect(() => convertToFloat8Training(model)).toThrow('"outer.weight" has an allGatherExtension');
    expect(extended(model)).toEqual(["outer.weight"]);
    const whole = new Linear(2, 2, { dtype: "int32", bias: false });
    expect(() => convertToFloat8Training(whole)).toThrow('"weight" is int32, allowed are floats');
    await runRanks(1, async ({ mesh }) => {
      const sharded = fullyShard(stack(), { mesh });
      expect(() => convertToFloat8Training(sharded)).toThrow(StateError);
    });
  });

  test("is refused by FSDP1 by the parameter's name, whatever its options", async () => {
    await runRanks(1, async ({ mesh }) => {
      for (const useOrigParams of [true, false]) {
        const model = convertToFloat8Training(stack(), { moduleFilterFn: (_, name) => name === "outer" });
        expect(() => new FullyShardedDataParallel(model, { mesh, useOrigParams })).toThrow(
          new ConfigError(
            'FullyShardedDataParallel() failed: parameter "outer.weight" has an allGatherExtension, which takes FSDP2',
          ),
        );
      }
    });
  });

  test("by rows is refused by layouts that cut somewhere in a row, when their parameter is gathered", async () => {
    await runRanks(2, async ({ mesh, device }) => {
      const layer = convertToFloat8Training(new Linear(4, 5, { bias: false }), { recipe: "rowwise" });
      // Ten elements a rank are two rows and a half.
      const unit = shardModule(layer, { layout: flatShard({ useOrigParams: false }), group: mesh.group(0) });
      await layer.to(device);
      await expect(unit!.unshard()).rejects.toThrow('"weight" failed: its layout cuts through rows');
    });
  });
});

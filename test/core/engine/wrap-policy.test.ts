import { describe, expect, test } from "bun:test";
import { ConfigError } from "../../../core/contracts/errors.ts";
import {
  alwaysWrap,
  chooseModules,
  modulesToWrap,
  moduleWrap,
  noWrap,
  orWrap,
  remainingSizeWrap,
  sizeWrap,
  transformerWrap,
  type WrapPolicy,
} from "../../../core/engine/wrap-policy.ts";
import { Linear, Module, Sequential } from "../../../core/nn/mod.ts";
import { Block, Stack } from "../../support/models.ts";

const model = () => new Stack({ layers: 2, features: 3, width: 4, hidden: 6 });
/** Numels: inner 16, each block 58 (up 30, down 28), outer 5. */
const chosen = (policy: WrapPolicy, root: Stack = model()) =>
  chooseModules(root, policy).map(({ name }) => name);

describe("a wrap policy chooses", () => {
  test("children before their parents, in the model's order, and never the root", () => {
    expect(chosen(alwaysWrap)).toEqual([
      "inner",
      "blocks.0.up",
      "blocks.0.down",
      "blocks.1.up",
      "blocks.1.down",
      "outer",
    ]);
    expect(chosen((_module, name) => name.startsWith("blocks.0"))).toEqual([
      "blocks.0.up",
      "blocks.0.down",
      "blocks.0",
    ]);
    expect(chosen(() => true)).not.toContain("");
    expect(chosen(noWrap)).toEqual([]);
  });

  test("by class: those of it and those derived from it, or by a class's name", () => {
    class Narrow extends Linear {}
    const root = new Sequential(new Narrow(2, 2), new Linear(2, 2), new Sequential(new Narrow(2, 2)));
    expect(chooseModules(root, moduleWrap([Linear])).map(({ name }) => name)).toEqual(["0", "1", "2.0"]);
    expect(chooseModules(root, moduleWrap([Narrow])).map(({ name }) => name)).toEqual(["0", "2.0"]);
    expect(chosen(transformerWrap(model(), ["Block"]))).toEqual(["blocks.0", "blocks.1"]);
    expect(() => transformerWrap(model(), ["Blok"])).toThrow(
      /"Blok" is not in the model, it has Block, Linear, Stack/,
    );
  });

  test("by size: what is left in a module after its children (FSDP1), or all of it (FSDP2)", () => {
    expect(chosen(remainingSizeWrap(58))).toEqual(["blocks.0", "blocks.1"]);
    expect(chosen(remainingSizeWrap(59))).toEqual([]);
    // 28 take both linears of a block, nothing of which is left then.
    expect(chosen(remainingSizeWrap(28))).toEqual([
      "blocks.0.up",
      "blocks.0.down",
      "blocks.1.up",
      "blocks.1.down",
    ]);
    expect(chosen(remainingSizeWrap(30))).toEqual(["blocks.0.up", "blocks.1.up"]);
    expect(chosen(sizeWrap(29))).toEqual(["blocks.0.up", "blocks.0", "blocks.1.up", "blocks.1"]);
    expect(chosen(sizeWrap(58))).toEqual([]);
    // PyTorch's default: nothing this small.
    expect(chosen(remainingSizeWrap())).toEqual([]);
  });

  test("by size, nothing below a leaf class", () => {
    expect(chosen(remainingSizeWrap(16, [Block]))).toEqual(["inner", "blocks.0", "blocks.1"]);
  });

  test("by any of several policies, the first of which gives the options", () => {
    const withRate =
      (rate: number): WrapPolicy<{ rate: number }> =>
      (module) =>
        module instanceof Block && { rate };
    const either = orWrap<{ rate: number }>((_module, name) => name === "inner", withRate(1), withRate(2));
    expect(chooseModules(model(), either).map(({ name, options }) => [name, options])).toEqual([
      ["inner", undefined],
      ["blocks.0", { rate: 1 }],
      ["blocks.1", { rate: 1 }],
    ]);
  });

  test("neither ignored modules nor what lies below them, and counts no ignored parameters", () => {
    const root = model();
    const policy = remainingSizeWrap(28);
    const modules = new Set([root.blocks[0]!]);
    expect(chooseModules(root, policy, { modules }).map(({ name }) => name)).toEqual([
      "blocks.1.up",
      "blocks.1.down",
    ]);
    const parameters = new Set([root.blocks[1]!.up.weight]);
    expect(chooseModules(root, policy, { parameters }).map(({ name }) => name)).toEqual([
      "blocks.0.up",
      "blocks.0.down",
      "blocks.1.down",
    ]);
  });

  test("a module that is there twice once", () => {
    class Twice extends Module<[], void> {
      readonly first = new Linear(2, 2);
      readonly again = this.first;
      override forward(): void {}
    }
    expect(chooseModules(new Twice(), alwaysWrap).map(({ name }) => name)).toEqual(["first"]);
    expect(modulesToWrap(new Twice(), alwaysWrap)).toHaveLength(1);
  });
});

test("an answer that is neither a boolean nor options is refused", () => {
  for (const answer of [undefined, 1, "yes", null, []]) {
    const policy = (() => answer) as unknown as WrapPolicy;
    expect(() => modulesToWrap(model(), policy)).toThrow(ConfigError);
  }
});

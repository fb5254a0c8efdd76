import { describe, expect, test } from "bun:test";
import { PluginError } from "../../../core/contracts/errors.ts";
import { type Kind, PLUGIN_CONTRACT, type Plugin } from "../../../core/contracts/plugin.ts";
import { createRegistry, KIND, PLUGIN, usePlugins } from "../../../core/runtime/registry.ts";

const FRUIT: Kind<number> = { name: "fruit" };
const registryOf = (...names: string[]) => {
  const registry = createRegistry({ root: "file:///root.ts" });
  for (const [i, name] of names.entries()) registry.register(FRUIT, name, i);
  return registry;
};

describe("registry", () => {
  test("gives back what was registered, names in order of registration", () => {
    const registry = registryOf("pear", "apple");
    expect(registry.get(FRUIT, "apple")).toBe(1);
    expect(registry.names(FRUIT)).toEqual(["pear", "apple"]);
    expect(registry.names({ name: "stone" })).toEqual([]);
    expect(registry.root).toBe("file:///root.ts");
  });

  test("a falsy value is registered like any other", () => {
    const registry = createRegistry({ root: "" });
    registry.register<undefined>({ name: "nothing" }, "x", undefined);
    expect(registry.get({ name: "nothing" }, "x")).toBeUndefined();
  });

  test("an unknown name lists what there is and suggests the closest", () => {
    expect(() => registryOf("pear", "apple").get(FRUIT, "aple")).toThrow(
      new PluginError('unknown fruit: given "aple", closest is "apple", allowed are "pear", "apple"'),
    );
    expect(() => registryOf().get(FRUIT, "x")).toThrow('unknown fruit: given "x", allowed are none');
    expect(() => registryOf("pear").get(FRUIT, "toString")).toThrow(PluginError);
  });

  test("a taken or malformed name is refused and changes nothing", () => {
    const registry = registryOf("pear");
    expect(() => registry.register(FRUIT, "pear", 9)).toThrow(
      'cannot register fruit "pear": the name is taken',
    );
    for (const name of ["", "a b", "-x", "a\nb"]) {
      expect(() => registry.register(FRUIT, name, 1)).toThrow(PluginError);
    }
    expect(registry.get(FRUIT, "pear")).toBe(0);
    expect(registry.names(FRUIT)).toEqual(["pear"]);
  });

  test("lists its kinds and lets nobody else do so", () => {
    const registry = registryOf("pear");
    expect(registry.names(KIND)).toEqual(["fruit"]);
    expect(registry.get(KIND, "fruit")).toBe(FRUIT);
    expect(() => registry.register(KIND, "x", FRUIT)).toThrow(PluginError);
  });
});

describe("usePlugins", () => {
  test("sets up in order and lists the plugins in use", () => {
    const registry = registryOf();
    const plugin = (name: string): Plugin => ({ name, setup: (to) => to.register(FRUIT, name, 1) });
    usePlugins(registry, [plugin("b"), { ...plugin("a"), contract: PLUGIN_CONTRACT }]);
    expect(registry.names(PLUGIN)).toEqual(["b", "a"]);
    expect(registry.names(FRUIT)).toEqual(["b", "a"]);
  });

  test("another contract version is refused before setup runs", () => {
    let ran = false;
    const plugin = {
      name: "late",
      contract: 2,
      setup: () => {
        ran = true;
      },
    };
    expect(() => usePlugins(registryOf(), [plugin])).toThrow(
      new PluginError('cannot set up plugin "late": written for contract 2, allowed is 1'),
    );
    expect(ran).toBe(false);
  });

  test("what setup throws is wrapped in an error that names the plugin and keeps the cause", () => {
    const cause = new TypeError("boom");
    const plugin: Plugin = {
      name: "bad",
      setup: () => {
        throw cause;
      },
    };
    const registry = registryOf();
    let thrown: unknown;
    try {
      usePlugins(registry, [plugin]);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(PluginError);
    expect(thrown).toMatchObject({ message: 'cannot set up plugin "bad": boom', cause });
    expect(registry.names(PLUGIN)).toEqual([]);
  });

  test("a name clash names the plugin and what clashed", () => {
    const plugin: Plugin = { name: "twice", setup: (to) => to.register(FRUIT, "pear", 1) };
    expect(() => usePlugins(registryOf("pear"), [plugin])).toThrow(
      'cannot set up plugin "twice": cannot register fruit "pear": the name is taken',
    );
    const empty: Plugin = { name: "same", setup: () => {} };
    expect(() => usePlugins(registryOf(), [empty, empty])).toThrow(
      'cannot set up plugin "same": a plugin of that',
    );
  });

  test("an asynchronous setup and a value that is no plugin are refused", () => {
    const late: Plugin = { name: "late", setup: async () => {} };
    expect(() => usePlugins(registryOf(), [late])).toThrow(
      'cannot set up plugin "late": its setup is asynchronous',
    );
    for (const value of [undefined, null, {}, { name: "x" }]) {
      expect(() => usePlugins(registryOf(), [value as unknown as Plugin])).toThrow(PluginError);
    }
  });
});

import { expect, test } from "bun:test";
import { ConfigError, PluginError } from "../../../core/contracts/errors.ts";
import { PROGRAM } from "../../../core/contracts/plugin.ts";
import type { RankContext } from "../../../core/contracts/transport.ts";
import { loadPlugins } from "../../../core/runtime/load-plugins.ts";
import { programRunner, rankProgram } from "../../../core/runtime/rank-program.ts";
import { createRegistry } from "../../../core/runtime/registry.ts";
import { SHARDING } from "../../../core/runtime/sharding-version.ts";

const registry = createRegistry({ root: "file:///root.ts" });
registry.register(PROGRAM, "echo", async (context, args) => [context.rank, args]);
const context = { rank: 3 } as RankContext;

test("a rank runs the program that its launcher named, with its arguments", async () => {
  const program = rankProgram(registry, "echo", { steps: 2 });
  expect(program).toMatchObject({ module: "file:///root.ts", export: "runProgram" });
  expect(await programRunner(registry)(context, structuredClone(program.args))).toEqual([3, { steps: 2 }]);
});

test("a rank loads the plugins that its launcher has, before it looks for the program", async () => {
  const plugin = new URL("../../examples/plugins/last-dim-sharding.ts", import.meta.url).href;
  const launcher = createRegistry({ root: "file:///root.ts" });
  launcher.register(PROGRAM, "echo", async () => 0);
  await loadPlugins(launcher, [plugin]);
  const { args } = rankProgram(launcher, "echo", 1);
  const rank = createRegistry({ root: "file:///root.ts" });
  rank.register(PROGRAM, "echo", async () => rank.names(SHARDING));
  expect(await programRunner(rank)(context, structuredClone(args))).toEqual(["last-dim"]);
});

test("an unknown program fails before and on the rank", async () => {
  expect(() => rankProgram(registry, "ecko", {})).toThrow('closest is "echo"');
  await expect(programRunner(registry)(context, { program: "ecko", args: 1 })).rejects.toThrow(PluginError);
});

test("malformed arguments reject as a config error", async () => {
  for (const args of [undefined, null, {}, { program: 1 }, { program: "echo", other: 1 }]) {
    await expect(programRunner(registry)(context, args)).rejects.toThrow(ConfigError);
  }
});

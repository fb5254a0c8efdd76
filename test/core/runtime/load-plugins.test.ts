import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { PluginError } from "../../../core/contracts/errors.ts";
import type { Kind } from "../../../core/contracts/plugin.ts";
import { runCommandLine } from "../../../core/runtime/command-line.ts";
import { loadedPlugins, loadPlugins, pluginUrl } from "../../../core/runtime/load-plugins.ts";
import { createRegistry, PLUGIN } from "../../../core/runtime/registry.ts";
import { inFolder } from "../../support/command.ts";

const FRUIT: Kind<number> = { name: "fruit" };
const GOOD = `export default {
  name: "good",
  setup(registry) { registry.register({ name: "fruit" }, "pear", 1); },
};`;

const named = (name: string) => `export const ${name} = { name: "${name}", setup() {} };`;

/** A fresh registry, and the URLs of modules with these texts. */
async function withModules<T>(
  texts: readonly string[],
  body: (registry: ReturnType<typeof createRegistry>, urls: readonly string[]) => Promise<T>,
): Promise<T> {
  return await inFolder(async (folder) => {
    const urls = texts.map((text, i) => {
      const path = join(folder, `plugin-${i}.ts`);
      writeFileSync(path, text);
      return pathToFileURL(path).href;
    });
    return await body(createRegistry({ root: "file:///root.ts" }), urls);
  });
}

/** The message with which loading these modules fails. */
async function failure(...texts: readonly string[]): Promise<string> {
  return await withModules(texts, async (registry, urls) => {
    const error: unknown = await loadPlugins(registry, urls).then(
      () => undefined,
      (thrown) => thrown,
    );
    expect(error).toBeInstanceOf(PluginError);
    const { message } = error as PluginError;
    expect(message).toContain("plugin-");
    expect(message).not.toContain("\n");
    return message;
  });
}

describe("loadPlugins", () => {
  test("sets up a module's default export, once, however often and from how many sides it is asked for", async () => {
    await withModules([GOOD], async (registry, urls) => {
      await Promise.all([loadPlugins(registry, urls), loadPlugins(registry, urls)]);
      await loadPlugins(registry, [...urls, ...urls]);
      expect(registry.names(PLUGIN)).toEqual(["good"]);
      expect(registry.get(FRUIT, "pear")).toBe(1);
      expect(loadedPlugins(registry)).toEqual(urls);
      expect(loadedPlugins(createRegistry({ root: "" }))).toEqual([]);
    });
  });

  test("takes a module's only plugin when it has no default export", async () => {
    await withModules([`${named("lonely")} export const other = 1;`], async (registry, urls) => {
      await loadPlugins(registry, urls);
      expect(registry.names(PLUGIN)).toEqual(["lonely"]);
    });
  });

  test("what is wrong with a module is one line that names it", async () => {
    expect(await failure("export const plugin = 1;")).toContain(
      'it has no default export { name, setup(registry) }, it exports "plugin"',
    );
    expect(await failure(`${named("a")} ${named("b")}`)).toContain('it exports "a", "b"');
    expect(await failure("throw new TypeError('not today');")).toContain("not today");
    expect(await failure("export default {")).toContain("cannot load plugin");
    expect(
      await failure(`export default { name: "bad", setup() { throw new RangeError("too far"); } };`),
    ).toContain('cannot set up plugin "bad": too far');
    expect(await failure(`export default { name: "old", contract: 7, setup() {} };`)).toContain(
      'cannot set up plugin "old": written for contract 7, allowed is 1',
    );
    expect(await failure(GOOD, GOOD)).toContain("a plugin of that name is in use already");
    expect(await failure(GOOD, GOOD.replace('"good"', '"other"'))).toContain(
      'cannot set up plugin "other": cannot register fruit "pear": the name is taken',
    );
  });

  test("a path that does not exist is named as it was resolved", async () => {
    const url = pluginUrl("none.ts", "/somewhere");
    expect(url).toBe("file:///somewhere/none.ts");
    expect(pluginUrl(url, "/elsewhere")).toBe(url);
    await expect(loadPlugins(createRegistry({ root: "" }), [url])).rejects.toThrow(
      'cannot load plugin "/somewhere/none.ts": there is no such file',
    );
    await expect(loadPlugins(createRegistry({ root: "" }), ["file://elsewhere/a.ts"])).rejects.toThrow(
      'cannot load plugin "file://elsewhere/a.ts": not a file\'s URL',
    );
  });
});

describe("--plugin", () => {
  const COMMAND = `export default {
    name: "brings-act",
    setup(registry) {
      registry.register({ name: "command" }, "act", {
        summary: "acts", positionals: "[WHAT]", options: {},
        run: async ({ print, positionals }) => (print("acted " + positionals.join()), 3),
      });
    },
  };`;
  const run = async (argv: (path: string) => readonly string[]) =>
    await withModules([COMMAND], async (registry, [url]) => {
      const out: string[] = [];
      const err: string[] = [];
      const code = await runCommandLine(registry, argv(url!), {
        print: (line) => out.push(line),
        printError: (line) => err.push(line),
        drain: async () => {},
      });
      return { code, out, err };
    });

  test("may bring the command itself, before or after its name", async () => {
    const acted = { code: 3, out: ["acted it"], err: [] };
    expect(await run((path) => ["--plugin", path, "act", "it"])).toEqual(acted);
    expect(await run((path) => ["act", "--plugin", path, "it"])).toEqual(acted);
    expect(await run((path) => [`--plugin=${path}`, "act", `--plugin=${path}`, "it"])).toEqual(acted);
  });

  test("shows in help", async () => {
    expect((await run((path) => ["--plugin", path])).out).toContain("  act  acts");
    expect((await run((path) => ["act", "--plugin", path, "--help"])).out).toContain("acts");
  });

  test("fails in one line", async () => {
    const { code, err } = await run(() => ["act", "--plugin", "./none.ts"]);
    expect(code).toBe(1);
    expect(err).toHaveLength(1);
    expect(err[0]).toMatch(/^error: cannot load plugin ".*none\.ts": there is no such file$/);
  });
});

/**
 * Third parties' plugins: modules that a command line or config file names, set up as the built-in ones are. Ranks are
 * fresh threads or processes, so what was loaded is remembered by URL and loaded again in each.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { FsdpError, PluginError } from "../contracts/errors.ts";
import type { Plugin, Registry } from "../contracts/plugin.ts";
import { quoted, quotedList } from "./names.ts";
import { usePlugins } from "./registry.ts";

/** By URL, in the order in which they were asked for. */
const loaded = new WeakMap<Registry, Map<string, Promise<void>>>();

/**
 * The URL of a plugin's module.
 *
 * @param path a file, or a `file:` URL.
 * @param folder what a relative path starts from.
 */
export function pluginUrl(path: string, folder: string): string {
  return path.startsWith("file:") ? path : pathToFileURL(resolve(folder, path)).href;
}

/** URLs of the plugins that `loadPlugins` gave to a registry, in order. */
export function loadedPlugins(registry: Registry): readonly string[] {
  return [...(loaded.get(registry)?.keys() ?? [])];
}

/**
 * Imports modules and sets up the plugins that they export (by default, or as the only one), in order. One that the registry has already is
 * left as it is.
 *
 * @throws PluginError naming the module when it does not exist, throws, has no plugin, or its plugin cannot be set up.
 */
export async function loadPlugins(registry: Registry, urls: readonly string[]): Promise<void> {
  const known = loaded.get(registry) ?? new Map<string, Promise<void>>();
  loaded.set(registry, known);
  for (const url of urls) {
    // Ranks that share this event loop may ask at the same time.
    const loading = known.get(url) ?? loadPlugin(registry, url);
    known.set(url, loading);
    await loading;
  }
}

async function loadPlugin(registry: Registry, url: string): Promise<void> {
  const path = pathOf(url);
  const failed = `cannot load plugin ${quoted(path)}`;
  if (!existsSync(path)) throw new PluginError(`${failed}: there is no such file`);
  let module: Readonly<Record<string, unknown>>;
  try {
    module = await import(url);
  } catch (error) {
    throw new PluginError(`${failed}: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
  const plugin = findPlugin(module);
  if (plugin === undefined) {
    throw new PluginError(
      `${failed}: it has no default export { name, setup(registry) }, it exports ${quotedList(Object.keys(module))}`,
    );
  }
  try {
    usePlugins(registry, [plugin]);
  } catch (error) {
    if (!(error instanceof FsdpError)) throw error;
    throw new PluginError(`${error.message} (${path})`, { cause: error });
  }
}

/** The default export, or the only one that is a plugin. */
function findPlugin(module: Readonly<Record<string, unknown>>): Plugin | undefined {
  if (isPlugin(module.default)) return module.default;
  const found = Object.values(module).filter(isPlugin);
  return found.length === 1 ? found[0] : undefined;
}

function isPlugin(value: unknown): value is Plugin {
  const { name, setup } = (value ?? {}) as Partial<Plugin>;
  return typeof name === "string" && typeof setup === "function";
}

/** @throws PluginError for a URL of another host. */
function pathOf(url: string): string {
  try {
    return fileURLToPath(url);
  } catch (error) {
    throw new PluginError(`cannot load plugin ${quoted(url)}: not a file's URL`, { cause: error });
  }
}

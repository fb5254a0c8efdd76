/**
 * The registry: where plugins put what they bring and where config finds it by name; and the door for plugins.
 *
 * @module
 */
import { PluginError } from "../contracts/errors.ts";
import { type Kind, PLUGIN_CONTRACT, type Plugin, type Registry } from "../contracts/plugin.ts";
import { closestName, quoted, quotedList } from "./names.ts";

/** The plugins in use, by name. */
export const PLUGIN: Kind<Plugin> = { name: "plugin" };
/** The kinds under which something is registered, in order of first use; the registry fills this one itself. */
export const KIND: Kind<Kind<unknown>> = { name: "kind" };

/** Names are words for config files and command lines. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.:-]*$/;

/**
 * An empty registry.
 *
 * @param options.root URL of the module that ranks import to get the same registry (its `import.meta.url`).
 */
export function createRegistry(options: { readonly root: string }): Registry {
  const entries = new Map<string, Map<string, unknown>>([[KIND.name, new Map()]]);
  return Object.freeze<Registry>({
    root: options.root,

    register<T>(kind: Kind<T>, name: string, value: T): void {
      if (kind.name === KIND.name)
        throw new PluginError(`cannot register a ${KIND.name}: the registry does so itself`);
      if (typeof name !== "string" || !NAME.test(name)) {
        throw new PluginError(
          `cannot register a ${kind.name}: given name ${quoted(String(name))}, allowed are letters, digits and "_.:-"`,
        );
      }
      let named = entries.get(kind.name);
      if (named === undefined) {
        named = new Map();
        entries.set(kind.name, named);
        entries.get(KIND.name)!.set(kind.name, kind);
      }
      if (named.has(name))
        throw new PluginError(`cannot register ${kind.name} ${quoted(name)}: the name is taken`);
      named.set(name, value);
    },

    get<T>(kind: Kind<T>, name: string): T {
      const named = entries.get(kind.name);
      if (named === undefined || !named.has(name)) {
        throw new PluginError(unknownName(kind.name, name, [...(named?.keys() ?? [])]));
      }
      // What lies under a kind came through `register` with the same kind, so it has the kind's type.
      return named.get(name) as T;
    },

    names(kind: Kind<unknown>): readonly string[] {
      return [...(entries.get(kind.name)?.keys() ?? [])];
    },
  });
}

/**
 * Sets up plugins in order. Each is listed under `PLUGIN` once its setup succeeded.
 *
 * @throws PluginError naming the plugin when it is malformed, was written for another contract version, has a taken
 * name, or throws in `setup`.
 */
export function usePlugins(registry: Registry, plugins: readonly Plugin[]): void {
  for (const plugin of plugins) {
    // A plugin may come from untyped code.
    if (typeof plugin?.name !== "string" || typeof plugin.setup !== "function") {
      throw new PluginError("cannot use a plugin: given a value that is not { name, setup(registry) }");
    }
    const failed = `cannot set up plugin ${quoted(plugin.name)}`;
    const contract = plugin.contract ?? PLUGIN_CONTRACT;
    if (contract !== PLUGIN_CONTRACT) {
      throw new PluginError(`${failed}: written for contract ${contract}, allowed is ${PLUGIN_CONTRACT}`);
    }
    if (registry.names(PLUGIN).includes(plugin.name)) {
      throw new PluginError(`${failed}: a plugin of that name is in use already`);
    }
    setUp(registry, plugin, failed);
  }
}

function setUp(registry: Registry, plugin: Plugin, failed: string): void {
  let result: unknown;
  try {
    result = plugin.setup(registry);
  } catch (error) {
    throw new PluginError(`${failed}: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
  // Whoever asks for a name right after would miss what an asynchronous setup registers later.
  if (result instanceof Promise) {
    result.catch(() => {});
    throw new PluginError(
      `${failed}: its setup is asynchronous, allowed is a setup that is done when it returns`,
    );
  }
  registry.register(PLUGIN, plugin.name, plugin);
}

/** The message about a name that is not there: what was given, the closest, and all that there are. */
function unknownName(kind: string, name: string, names: readonly string[]): string {
  const closest = closestName(name, names);
  const hint = closest === undefined ? "" : `, closest is ${quoted(closest)}`;
  return `unknown ${kind}: given ${quoted(name)}${hint}, allowed are ${quotedList(names)}`;
}

/**
 * Rank programs by name: a rank is a fresh thread or process, so it imports the composition root again, loads the third
 * parties' plugins that its launcher had, and finds the function to run in that registry.
 *
 * @module
 */
import * as v from "valibot";
import { ConfigError } from "../contracts/errors.ts";
import { PROGRAM, type Registry } from "../contracts/plugin.ts";
import type { RankFunction, RankProgram } from "../contracts/transport.ts";
import { loadedPlugins, loadPlugins } from "./load-plugins.ts";

/** Name under which a composition root exports its `programRunner`. */
const EXPORT = "runProgram";

const ProgramArgs = v.strictObject({
  program: v.string(),
  plugins: v.optional(v.array(v.string()), []),
  args: v.optional(v.unknown()),
});

/**
 * What a transport launches to run the registered program `name` on every rank.
 *
 * @param args handed to the program; structured-cloneable.
 * @throws PluginError when there is no such program: known before any rank starts.
 */
export function rankProgram(registry: Registry, name: string, args: unknown): RankProgram {
  registry.get(PROGRAM, name);
  const plugins = loadedPlugins(registry);
  return { module: registry.root, export: EXPORT, args: { program: name, plugins, args } };
}

/** The rank's side of `rankProgram`, which a composition root exports as `runProgram`. */
export function programRunner(registry: Registry): RankFunction {
  return async (context, args) => {
    const parsed = v.safeParse(ProgramArgs, args);
    if (!parsed.success) {
      throw new ConfigError(
        `cannot run a rank program: ${parsed.issues[0].message}, allowed is { program, plugins, args }`,
      );
    }
    await loadPlugins(registry, parsed.output.plugins);
    return registry.get(PROGRAM, parsed.output.program)(context, parsed.output.args);
  };
}

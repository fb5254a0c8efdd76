/**
 * The command line: finds the command, parses by its option table, runs it, and turns what it throws into an exit code.
 *
 * @module
 */
import process from "node:process";
import type { CommandSpec } from "../contracts/command.ts";
import { ConfigError, FsdpError } from "../contracts/errors.ts";
import { COMMAND, type Registry } from "../contracts/plugin.ts";
import { commandHelp, generalHelp } from "./command-help.ts";
import { loadPlugins, pluginUrl } from "./load-plugins.ts";
import { closestName, quoted, quotedList } from "./names.ts";
import { type CommandOutput, processOutput } from "./output.ts";
import { asksForHelp, ownArguments, parseArguments, pluginPaths } from "./parse-options.ts";
import { packageVersion } from "./version.ts";

/**
 * Runs one command line.
 *
 * An error of the project prints `error: ...`, one line on standard error; any other prints its stack. Either gives 1.
 *
 * @param argv arguments after the program's name.
 * @param output this process's own unless given.
 * @returns the exit code, when all output was handed over. Never rejects for what a command throws.
 */
export async function runCommandLine(
  registry: Registry,
  argv: readonly string[],
  output: CommandOutput = processOutput(),
): Promise<number> {
  let code: number;
  try {
    code = await dispatch(registry, argv, output);
  } catch (error) {
    output.printError(error instanceof FsdpError ? `error: ${oneLine(error.message)}` : stackOf(error));
    code = 1;
  }
  await output.drain();
  return code;
}

async function dispatch(registry: Registry, all: readonly string[], output: CommandOutput): Promise<number> {
  const { before, argv } = splitPlugins(all);
  await usePluginsAt(registry, before);
  const [name, ...rest] = argv;
  if (name === undefined || name === "--help" || name === "-h") {
    await usePluginsAt(registry, pluginPaths(rest));
    for (const line of generalHelp(registry)) output.print(line);
    return 0;
  }
  if (name === "--version") {
    output.print(await packageVersion(registry.root));
    return 0;
  }
  // A plugin may bring the command itself.
  if (!registry.names(COMMAND).includes(name)) await usePluginsAt(registry, pluginPaths(rest));
  const spec = findCommand(registry, name);
  if (asksForHelp(ownArguments(name, spec, rest))) {
    for (const line of commandHelp(name, spec)) output.print(line);
    return 0;
  }
  const parsed = parseArguments(name, spec, rest);
  const { plugin } = parsed.options;
  if (Array.isArray(plugin)) await usePluginsAt(registry, plugin);
  return await spec.run({
    registry,
    ...parsed,
    print: (line) => output.print(line),
    printError: (line) => output.printError(line),
  });
}

/** Takes `--plugin PATH` from before the command. */
function splitPlugins(all: readonly string[]): {
  readonly before: readonly string[];
  readonly argv: readonly string[];
} {
  let end = 0;
  while (/^--plugin(=|$)/.test(all[end] ?? "")) end += all[end] === "--plugin" ? 2 : 1;
  return { before: pluginPaths(all.slice(0, end)), argv: all.slice(end) };
}

async function usePluginsAt(registry: Registry, paths: readonly string[]): Promise<void> {
  await loadPlugins(
    registry,
    paths.map((path) => pluginUrl(path, process.cwd())),
  );
}

function findCommand(registry: Registry, name: string): CommandSpec {
  const names = registry.names(COMMAND);
  if (names.includes(name)) return registry.get(COMMAND, name);
  const closest = closestName(name, names);
  const hint = closest === undefined ? "" : `, closest is ${quoted(closest)}`;
  throw new ConfigError(`unknown command: given ${quoted(name)}${hint}, allowed are ${quotedList(names)}`);
}

/** Line breaks become spaces and other control characters vanish: messages may quote what came from outside. */
function oneLine(message: string): string {
  return message.replace(/\s*[\r\n\u2028\u2029]+\s*/g, " ").replace(/\p{Cc}/gu, "");
}

function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return `unexpected error: ${String(error)}`;
  return error.stack ?? `${error.name}: ${error.message}`;
}

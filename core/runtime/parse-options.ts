/**
 * Arguments of one command, parsed by its option table.
 *
 * Own code instead of `node:util` parseArgs, which knows neither `_` for `-`, nor options with several values, nor
 * negative numbers as values. The rules:
 * - `--name value` or `--name=value`; of several the last counts. `-` and `_` in names are the same.
 * - A boolean is `--flag`, `--no-flag`, `--flag=true|false` or, as Accelerate writes it, `--flag true|false`.
 * - An option with `many` takes all values up to the next option, but one at a time before a script.
 * - `--` ends the options: what follows is positional. So does a script's name where the command passes the rest to it.
 *
 * @module
 */
import type { CommandSpec, OptionSpec, OptionValue } from "../contracts/command.ts";
import { ConfigError, PluginError } from "../contracts/errors.ts";
import { closestName, quoted } from "./names.ts";
import { describeValues, parseOptionValue } from "./option-value.ts";
import { checkPositionals } from "./positionals.ts";

/** What `run` is given of the command line. */
export interface ParsedArguments {
  /** Values by declared name; defaults filled in. */
  readonly options: Readonly<Record<string, OptionValue>>;
  /** Declared names of the options that were given. */
  readonly given: ReadonlySet<string>;
  readonly positionals: readonly string[];
}

/** An option by the name that it was declared with. */
interface Option {
  readonly name: string;
  readonly spec: OptionSpec;
}

/** One use of an option on the command line. */
interface OptionUse {
  readonly option: Option;
  /** As it was written, with its dashes and without its value. */
  readonly written: string;
  /** What followed `=`. */
  readonly inline: string | undefined;
  /** Written as `--no-...`. */
  readonly negated: boolean;
}

/** Options that every command accepts; a command may declare its own of the same name. */
const COMMON_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  plugin: {
    type: "string",
    repeat: true,
    placeholder: "PATH",
    description: "use a plugin: a module whose default export is one",
  },
  json: { type: "boolean", description: "print JSON, for machines", default: false },
};

/** All options of a command, the common ones last. */
export function optionsOf(spec: CommandSpec): Readonly<Record<string, OptionSpec>> {
  return {
    ...spec.options,
    ...Object.fromEntries(Object.entries(COMMON_OPTIONS).filter(([name]) => !(name in spec.options))),
  };
}

/** Whether help was asked for anywhere before `--`; then nothing else is parsed. */
export function asksForHelp(argv: readonly string[]): boolean {
  return beforeDashes(argv).some((token) => token === "--help" || token === "-h");
}

/** Every `--plugin PATH` before `--`, for when the command is not known yet. */
export function pluginPaths(argv: readonly string[]): readonly string[] {
  const tokens = beforeDashes(argv);
  return tokens.flatMap((token, i) => {
    if (token.startsWith("--plugin=")) return [token.slice("--plugin=".length)];
    const path = tokens[i + 1];
    return token === "--plugin" && path !== undefined && !isOption(path) ? [path] : [];
  });
}

/** The arguments that are the command's own: those of a script that it starts are not. */
export function ownArguments(command: string, spec: CommandSpec, argv: readonly string[]): readonly string[] {
  if (spec.passThrough !== true) return argv;
  const table = optionTable(command, spec);
  for (let i = 0; i < argv.length; ) {
    const token = argv[i++]!;
    if (token === "--" || !isOption(token)) return argv.slice(0, i);
    const use = lookUp(table, token);
    if (use !== undefined && use.inline === undefined) i += followingValues(use, argv, i).length;
  }
  return argv;
}

function beforeDashes(argv: readonly string[]): readonly string[] {
  const end = argv.indexOf("--");
  return end < 0 ? argv : argv.slice(0, end);
}

/**
 * Parses the arguments after the command's name.
 *
 * @throws ConfigError for an unknown option, a missing or bad value, or positionals that do not fit.
 */
export function parseArguments(command: string, spec: CommandSpec, argv: readonly string[]): ParsedArguments {
  const table = optionTable(command, spec);
  const values = new Map<string, OptionValue>();
  const positionals: string[] = [];
  for (let i = 0; i < argv.length; ) {
    const token = argv[i++]!;
    if (token === "--") {
      positionals.push(...argv.slice(i));
      break;
    }
    if (!isOption(token)) {
      positionals.push(token);
      if (spec.passThrough !== true) continue;
      positionals.push(...argv.slice(i));
      break;
    }
    const use = findOption(command, table, token);
    const words = use.inline !== undefined ? [use.inline] : followingValues(use, argv, i);
    if (use.inline === undefined) i += words.length;
    values.set(use.option.name, optionValue(command, use, words, values.get(use.option.name)));
  }
  checkPositionals(command, spec.positionals, positionals);
  const options: Record<string, OptionValue> = {};
  for (const { name, spec: option } of table.values())
    options[name] = values.get(name) ?? defaultValue(option);
  return { options, given: new Set(values.keys()), positionals };
}

function defaultValue(spec: OptionSpec): OptionValue {
  return isList(spec) && spec.default !== undefined ? [String(spec.default)] : spec.default;
}

/** `-x` and `--x` are options; `-`, `-1` and `-.5` are values. */
function isOption(token: string): boolean {
  return (token.startsWith("--") && token !== "--") || /^-[A-Za-z]/.test(token);
}

function canonical(name: string): string {
  return name.replaceAll("_", "-");
}

function isList(spec: OptionSpec): boolean {
  return spec.many === true || spec.repeat === true;
}

/** Options by canonical name, under their other names too. */
function optionTable(command: string, spec: CommandSpec): ReadonlyMap<string, Option> {
  const table = new Map<string, Option>();
  for (const [name, declared] of Object.entries(optionsOf(spec))) {
    const optionSpec =
      declared.many === true && spec.passThrough === true
        ? { ...declared, many: false, repeat: true }
        : declared;
    for (const key of [name, ...(declared.aliases ?? [])].map(canonical)) {
      if (table.has(key)) {
        throw new PluginError(
          `bad command ${quoted(command)}: options ${quoted(table.get(key)!.name)} and ${quoted(name)} are the same`,
        );
      }
      table.set(key, { name, spec: optionSpec });
    }
  }
  return table;
}

/** The option that a token uses. @throws ConfigError for an unknown one. */
function findOption(command: string, table: ReadonlyMap<string, Option>, token: string): OptionUse {
  const use = lookUp(table, token);
  if (use !== undefined) return use;
  const written = token.split("=", 1)[0]!;
  const closest = closestName(canonical(written.replace(/^--?/, "")), [...table.keys()]);
  const hint =
    closest === undefined
      ? `allowed are those that "${command} --help" lists`
      : `closest is "--${table.get(closest)!.name}"`;
  throw new ConfigError(`unknown option for ${quoted(command)}: given ${quoted(written)}, ${hint}`);
}

function lookUp(table: ReadonlyMap<string, Option>, token: string): OptionUse | undefined {
  if (!token.startsWith("--")) return undefined;
  const equals = token.indexOf("=");
  const written = equals < 0 ? token : token.slice(0, equals);
  const inline = equals < 0 ? undefined : token.slice(equals + 1);
  const key = canonical(written.slice(2));
  const option = table.get(key);
  if (option !== undefined) return { option, written, inline, negated: false };
  const positive = key.startsWith("no-") ? table.get(key.slice(3)) : undefined;
  if (positive === undefined || !isFlag(positive.spec)) return undefined;
  return { option: positive, written, inline, negated: true };
}

/** Whether an option may stand without a value. */
function isFlag(spec: OptionSpec): boolean {
  return spec.type === "boolean" || spec.flag === true;
}

/** The words from `argv[start]` on that are this option's values. */
function followingValues(use: OptionUse, argv: readonly string[], start: number): readonly string[] {
  const { spec } = use.option;
  if (isFlag(spec)) {
    // A bare word is a flag's value only when it can hardly be anything else.
    const value = spec.type === "boolean" ? /^(true|false)$/i : /^(true|false|\d+)$/i;
    return !use.negated && value.test(argv[start] ?? "") ? [argv[start]!] : [];
  }
  const end = spec.many === true ? argv.length : start + 1;
  const words = argv.slice(start, end);
  const next = words.findIndex((word) => word === "--" || isOption(word));
  return next < 0 ? words : words.slice(0, next);
}

/** The value of one use of an option; `earlier` is what uses before it gave. */
function optionValue(
  command: string,
  use: OptionUse,
  words: readonly string[],
  earlier: OptionValue,
): Exclude<OptionValue, undefined> {
  const { name, spec } = use.option;
  if (isFlag(spec) && words.length === 0)
    return spec.type === "boolean" ? !use.negated : String(!use.negated);
  if (words.length === 0) {
    throw new ConfigError(
      `missing value for option "--${name}" of ${quoted(command)}: given none, ${describeValues(spec)}`,
    );
  }
  const values = words.map((word) => {
    const value = use.negated ? undefined : parseOptionValue(spec, word);
    if (value !== undefined) return value;
    const allowed = use.negated ? "allowed is none" : describeValues(spec);
    throw new ConfigError(
      `invalid value for option ${quoted(use.negated ? use.written : `--${name}`)} of ${quoted(command)}: given ${quoted(word)}, ${allowed}`,
    );
  });
  if (!isList(spec)) return values[0]!;
  return [...(Array.isArray(earlier) ? earlier : []), ...words];
}

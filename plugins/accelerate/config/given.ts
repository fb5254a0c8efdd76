/**
 * Options as each source gives them, and the one order among sources: code, command line, environment, config file.
 *
 * @module
 */
import type { OptionValue } from "../../../core/contracts/command.ts";
import { OPTION_NAMES, type OptionName, type OptionValues, optionOf } from "./options.ts";
import { parseValue } from "./values.ts";

/** A value that was given, and what the user wrote to give it. */
export interface Given {
  readonly value: unknown;
  /** For messages: `--fsdp-version`, `FSDP_VERSION`, `fsdp_version in "run.yaml"`. */
  readonly where: string;
}

/** What is given, by option. Structured-cloneable when its values are. */
export type GivenOptions = Readonly<Partial<Record<OptionName, Given>>>;

/** An environment. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** What variables say. An empty one says nothing. */
export function givenByEnvironment(env: Environment): GivenOptions {
  return collect((name) => {
    const { env: variable } = optionOf(name);
    const value = env[variable];
    return value === undefined || value === "" ? undefined : { value, where: variable };
  });
}

/** The name of an option on the command line, without dashes. */
export function flagOf(name: OptionName): string {
  return optionOf(name).key.replaceAll("_", "-");
}

/** What was given on a command line. */
export function givenByCommandLine(
  options: Readonly<Record<string, OptionValue>>,
  given: ReadonlySet<string>,
): GivenOptions {
  return collect((name) => {
    const flag = flagOf(name);
    return given.has(flag) ? { value: options[flag], where: `--${flag}` } : undefined;
  });
}

/** What code says; `undefined` says nothing. */
export function givenByCode(values: Readonly<Partial<Record<OptionName, unknown>>>): GivenOptions {
  return collect((name) => {
    const value = values[name];
    return value === undefined ? undefined : { value, where: name };
  });
}

/** The first source that gives an option decides it. */
export function firstGiven(...sources: readonly GivenOptions[]): GivenOptions {
  return Object.assign({}, ...sources.toReversed());
}

/** Values of what is given, checked. @throws ConfigError that names a bad one as the user wrote it. */
export function checkGiven(given: GivenOptions, names: readonly OptionName[] = OPTION_NAMES): OptionValues {
  return Object.fromEntries(
    names.flatMap((name) => {
      const one = given[name];
      return one === undefined ? [] : [[name, parseValue(name, one.value, one.where)]];
    }),
  );
}

function collect(find: (name: OptionName) => Given | undefined): GivenOptions {
  return Object.fromEntries(
    OPTION_NAMES.flatMap((name) => {
      const given = find(name);
      return given === undefined ? [] : [[name, given]];
    }),
  );
}

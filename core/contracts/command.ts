/**
 * Command: one verb of the command line, with its options as data: help, parsing and checks all come from this.
 *
 * @module
 */
import type { Registry } from "./plugin.ts";

/** One option. In names `-` and `_` are the same. */
export interface OptionSpec {
  readonly type: "string" | "number" | "integer" | "boolean";
  readonly description: string;
  /** Shown in help; also what `run` receives when the option is absent. */
  readonly default?: string | number | boolean;
  /** Allowed values of a string. */
  readonly choices?: readonly string[];
  /** Smallest allowed number. */
  readonly min?: number;
  /** Largest allowed number. */
  readonly max?: number;
  /** May be given several times, or with several values; `run` receives an array. */
  readonly many?: boolean;
  /** May be given several times, with one value each; `run` receives an array. */
  readonly repeat?: boolean;
  /** A string that is also a flag: `--name` alone is `"true"`, `--no-name` is `"false"`; numbers and these words may follow. */
  readonly flag?: boolean;
  /** Other names of the option. */
  readonly aliases?: readonly string[];
  /** Placeholder in help, for example `DIR`. */
  readonly placeholder?: string;
}

/** A parsed option value. */
export type OptionValue = string | number | boolean | readonly string[] | undefined;

/** What a command's `run` is given. */
export interface CommandContext {
  readonly registry: Registry;
  /** Values by option name as declared; absent ones without default are `undefined`. */
  readonly options: Readonly<Record<string, OptionValue>>;
  /** Names of options that were given on the command line. */
  readonly given: ReadonlySet<string>;
  readonly positionals: readonly string[];
  /** Prints a line to standard output. */
  print(line: string): void;
  /** Prints a line to standard error. */
  printError(line: string): void;
}

/** A command. */
export interface CommandSpec {
  readonly summary: string;
  /** Positional arguments for the usage line, for example `SRC OUT`; none are accepted when absent. */
  readonly positionals?: string;
  /** What follows the first positional is positional, whatever it looks like: the arguments of a script. */
  readonly passThrough?: boolean;
  readonly options: Readonly<Record<string, OptionSpec>>;
  /** @returns the exit code. Errors of the project become one clear line and exit code 1. */
  run(context: CommandContext): Promise<number>;
}

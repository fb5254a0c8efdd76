/**
 * Positional arguments, checked against the usage line's words: `SRC`, `[DIR]` (may be absent), `PATH...` (one or more),
 * `[ARGS...]` (any number).
 *
 * @module
 */
import { ConfigError } from "../contracts/errors.ts";
import { quoted } from "./names.ts";

/**
 * @param usage words of `CommandSpec.positionals`; `undefined` allows none.
 * @throws ConfigError when there are too few or too many.
 */
export function checkPositionals(command: string, usage: string | undefined, given: readonly string[]): void {
  const words = usage?.split(/\s+/).filter((word) => word !== "") ?? [];
  const required = words.filter((word) => !word.startsWith("["));
  const most = words.some((word) => word.includes("...")) ? Infinity : words.length;
  if (given.length < required.length) {
    throw new ConfigError(
      `missing argument for ${quoted(command)}: given ${given.length}, allowed are ${quoted(words.join(" "))}`,
    );
  }
  if (given.length > most) {
    const allowed =
      words.length === 0 ? "allowed are options only" : `allowed are ${quoted(words.join(" "))}`;
    throw new ConfigError(
      `unexpected argument for ${quoted(command)}: given ${quoted(given[most]!)}, ${allowed}`,
    );
  }
}

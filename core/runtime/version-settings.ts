/**
 * Options of a sharding version's own: from what config says to checked values.
 *
 * @module
 */
import type { OptionSpec } from "../contracts/command.ts";
import { ConfigError } from "../contracts/errors.ts";
import { closestName, quoted, quotedList } from "./names.ts";
import { describeValues, parseOptionValue } from "./option-value.ts";
import type { ShardingVersion } from "./sharding-version.ts";

/**
 * Values of a version's own options, defaults filled in.
 *
 * @param given by name; `-` and `_` are the same. Values may be text.
 * @throws ConfigError for a name or value that the version does not have.
 */
export function checkSettings(
  name: string,
  version: ShardingVersion,
  given: Readonly<Record<string, unknown>>,
): Readonly<Record<string, string | number | boolean>> {
  const declared = Object.entries(version.options ?? {});
  const values: Record<string, string | number | boolean> = {};
  for (const [option, spec] of declared) if (spec.default !== undefined) values[option] = spec.default;
  for (const [key, raw] of Object.entries(given)) {
    const found = declared.find(([option]) => canonical(option) === canonical(key));
    if (found === undefined) throw unknownSetting(name, declared, key);
    values[found[0]] = checkValue(name, found[0], found[1], raw);
  }
  return values;
}

/** Whether a version has an option of its own by this name. */
export function hasSetting(version: ShardingVersion, key: string): boolean {
  return Object.keys(version.options ?? {}).some((option) => canonical(option) === canonical(key));
}

function checkValue(version: string, option: string, spec: OptionSpec, raw: unknown) {
  const plain = typeof raw === "string" || typeof raw === "number" || typeof raw === "boolean";
  const value = plain ? parseOptionValue(spec, String(raw)) : undefined;
  if (value !== undefined) return value;
  throw new ConfigError(
    `invalid value for option ${quoted(option)} of FSDP version ${quoted(version)}: given ${JSON.stringify(raw)}, ${describeValues(spec)}`,
  );
}

function unknownSetting(
  version: string,
  declared: readonly [string, OptionSpec][],
  key: string,
): ConfigError {
  const names = declared.map(([option]) => option);
  const closest = closestName(key, names);
  const hint = closest === undefined ? "" : `, closest is ${quoted(closest)}`;
  return new ConfigError(
    `unknown option of FSDP version ${quoted(version)}: given ${quoted(key)}${hint}, allowed are ${quotedList(names)}`,
  );
}

function canonical(name: string): string {
  return name.toLowerCase().replaceAll("_", "-");
}

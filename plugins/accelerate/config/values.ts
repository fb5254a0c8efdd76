/**
 * Values of options as environment variables, config files, command lines and code spell them: one schema an option, for
 * all of them. Accelerate's spellings are known: `yes` for true, names in any case, their numbers from 1.
 *
 * @module
 */
import * as v from "valibot";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { quoted, quotedList } from "../../../core/runtime/names.ts";
import { type ConfigOption, type OptionName, type OptionValues, optionOf } from "./options.ts";

const TRUE: readonly string[] = ["true", "yes", "y", "t", "on", "1"];
const FALSE: readonly string[] = ["false", "no", "n", "f", "off", "0"];

const Word = v.pipe(v.string(), v.trim(), v.toLowerCase());

const Flag = v.union([
  v.boolean(),
  v.pipe(
    Word,
    v.picklist([...TRUE, ...FALSE]),
    v.transform((word) => TRUE.includes(word)),
  ),
]);

/** Digits as numbers, with an exponent if any (`1e8`). */
const NumberText = v.pipe(v.string(), v.trim(), v.regex(/^\d+(\.\d+)?(e\+?\d+)?$/i), v.transform(Number));

function Whole(min: number) {
  return v.pipe(v.union([v.number(), NumberText]), v.safeInteger(), v.minValue(min));
}

function Choice(choices: readonly string[]) {
  const found = (value: string | number) => {
    const text = String(value).toUpperCase();
    return /^\d+$/.test(text) ? choices[Number(text) - 1] : choices.find((choice) => choice === text);
  };
  return v.pipe(
    v.union([v.pipe(v.string(), v.trim()), v.number()]),
    v.check((value) => found(value) !== undefined),
    v.transform((value) => found(value)!),
  );
}

const Pattern = v.pipe(v.string(), v.minLength(1), v.check(isPattern));
const Names = v.pipe(
  v.union([v.string(), v.array(v.string())]),
  v.transform((names) => (typeof names === "string" ? [names] : names).flatMap((name) => name.split(","))),
  v.transform((names) => names.map((name) => name.trim())),
  v.minLength(1),
  v.everyItem((name) => name !== ""),
);
const Version = v.union([Whole(1), v.pipe(v.string(), v.trim(), v.regex(/^[A-Za-z][A-Za-z0-9_.:-]*$/))]);

/** The schema of an option's values. */
export function schemaOf(option: ConfigOption): v.GenericSchema<unknown, unknown> {
  switch (option.kind) {
    case "boolean":
      return Flag;
    case "integer":
      return Whole(option.min ?? 0);
    case "choice":
      return Choice(option.choices ?? []);
    case "names":
      return Names;
    case "pattern":
      return Pattern;
    case "degree":
      return v.union([Flag, Whole(2)]);
    case "version":
      return Version;
  }
}

/** What an option allows, as the end of a message. */
export function allowedValues(option: ConfigOption): string {
  switch (option.kind) {
    case "boolean":
      return 'allowed are "true", "false"';
    case "integer":
      return `allowed are integers from ${option.min ?? 0}`;
    case "choice":
      return `allowed are ${quotedList(option.choices ?? [])}`;
    case "names":
      return "allowed are names separated by commas";
    case "pattern":
      return "allowed are regular expressions";
    case "degree":
      return 'allowed are "true", "false", integers from 2';
    case "version":
      return "allowed are 1, 2 and the name of a plugin's version";
  }
}

/**
 * An option's value, checked.
 *
 * @param where what the user wrote, for example `--fsdp-version` or `fsdp_version in "run.yaml"`.
 * @throws ConfigError that names it.
 */
export function parseValue<N extends OptionName>(name: N, raw: unknown, where: string): OptionValues[N] {
  const option = optionOf(name);
  const parsed = v.safeParse(schemaOf(option), raw);
  // The table's type of the option is the type of its schema's output.
  if (parsed.success) return parsed.output as OptionValues[N];
  throw new ConfigError(`cannot use ${where}: given ${described(raw)}, ${allowedValues(option)}`);
}

/** A value as a message shows it. */
export function described(value: unknown): string {
  if (typeof value === "string") return quoted(value);
  return typeof value === "function" ? "a function" : (JSON.stringify(value) ?? String(value));
}

function isPattern(text: string): boolean {
  try {
    new RegExp(text);
    return true;
  } catch {
    return false;
  }
}

/**
 * Help texts, made from the same tables that parse the command line.
 *
 * @module
 */
import type { CommandSpec, OptionSpec } from "../contracts/command.ts";
import { COMMAND, type Registry } from "../contracts/plugin.ts";
import { describeRange } from "./option-value.ts";
import { optionsOf } from "./parse-options.ts";
import { textTable } from "./text-table.ts";

/** Columns for descriptions before they wrap. */
const DESCRIPTION_WIDTH = 72;

/** Lines about all commands. */
export function generalHelp(registry: Registry): readonly string[] {
  const commands = registry.names(COMMAND).map((name) => [name, registry.get(COMMAND, name).summary]);
  return [
    "usage: fsdp [--plugin PATH] COMMAND [options]",
    "       where fsdp is `bun mod.ts` or `deno run -A mod.ts`",
    "",
    "commands:",
    ...textTable(commands, { indent: 2 }),
    "",
    "`fsdp COMMAND --help` lists a command's options, `fsdp --version` prints the version",
  ];
}

/** Lines about one command: usage, summary, options. */
export function commandHelp(name: string, spec: CommandSpec): readonly string[] {
  const options = Object.entries({ ...optionsOf(spec), help: HELP });
  const positionals = spec.positionals === undefined ? "" : ` ${spec.positionals}`;
  const rows = options.flatMap(([option, optionSpec]) =>
    wrap(describe(optionSpec)).map((line, i) => [i === 0 ? signature(option, optionSpec) : "", line]),
  );
  return [
    spec.passThrough === true
      ? `usage: fsdp ${name} [options]${positionals}`
      : `usage: fsdp ${name}${positionals} [options]`,
    "",
    spec.summary,
    "",
    "options:",
    ...textTable(rows, { indent: 2 }),
  ];
}

const HELP: OptionSpec = { type: "boolean", description: "print this" };

/** `--steps INTEGER`, `--flag`, `--no-flag` when the flag is on by default, `--data PATH...`. */
function signature(name: string, spec: OptionSpec): string {
  if (spec.type === "boolean") return spec.default === true ? `--no-${name}` : `--${name}`;
  if (spec.flag === true && spec.placeholder === undefined) return `--${name}`;
  const value = spec.placeholder ?? (spec.type === "string" ? "TEXT" : spec.type.toUpperCase());
  return `--${name} ${value}${spec.many === true && !value.endsWith("...") ? "..." : ""}`;
}

function describe(spec: OptionSpec): string {
  const notes: string[] = [];
  if (spec.aliases !== undefined) notes.push(`also ${spec.aliases.map((alias) => `--${alias}`).join(", ")}`);
  if (spec.choices !== undefined) notes.push(`one of ${spec.choices.join(", ")}`);
  if (describeRange(spec) !== "") notes.push(describeRange(spec).trim());
  if (spec.default !== undefined && spec.default !== false) {
    notes.push(spec.type === "boolean" ? "on by default" : `default ${spec.default}`);
  }
  return notes.length === 0 ? spec.description : `${spec.description} (${notes.join("; ")})`;
}

/** Breaks text at spaces into lines of at most `DESCRIPTION_WIDTH` columns; longer words stand alone. */
function wrap(text: string): readonly string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(/\s+/)) {
    if (line !== "" && line.length + 1 + word.length > DESCRIPTION_WIDTH) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}

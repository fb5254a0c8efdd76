/**
 * The option table as options of a command.
 *
 * @module
 */
import type { OptionSpec } from "../../../core/contracts/command.ts";
import { flagOf } from "./given.ts";
import { type ConfigOption, OPTION_NAMES, optionOf } from "./options.ts";

/** What every command that shards a model takes. */
export const COMMAND_OPTIONS: Readonly<Record<string, OptionSpec>> = Object.freeze({
  "config-file": { type: "string", placeholder: "YAML", description: "config file, as Accelerate's" },
  ...Object.fromEntries(OPTION_NAMES.map((name) => [flagOf(name), commandOption(optionOf(name))])),
  "fsdp-options": {
    type: "string",
    many: true,
    placeholder: "NAME=VALUE",
    description: "options of the FSDP version's own",
  },
  "dp-replicate-size": {
    type: "integer",
    min: 1,
    aliases: ["parallelism_config_dp_replicate_size"],
    description: "groups of ranks that hold the same shards (HSDP)",
  },
  "dp-shard-size": {
    type: "integer",
    min: 1,
    aliases: ["parallelism_config_dp_shard_size"],
    description: "ranks that a group's shards are cut over; by default all of them",
  },
} satisfies Record<string, OptionSpec>);

/**
 * One row as an option. Values stay text, which the table's own schema then checks: the command line knows neither names in
 * any case nor Accelerate's numbers for them.
 */
function commandOption(option: ConfigOption): OptionSpec {
  const description = describe(option);
  switch (option.kind) {
    case "boolean":
      return { type: "boolean", description, default: option.default === true };
    case "integer":
      return { type: "integer", description, min: option.min ?? 0 };
    case "degree":
      return { type: "string", flag: true, description };
    case "names":
      return { type: "string", placeholder: "NAMES", many: true, description };
    case "choice":
    case "pattern":
    case "version":
      return { type: "string", placeholder: option.kind.toUpperCase(), description };
  }
}

function describe({ kind, description, choices, default: value, absent, v1, v2 }: ConfigOption): string {
  const notes: string[] = [];
  if (choices !== undefined) notes.push(`one of ${choices.join(", ")}`);
  if (kind !== "boolean" && (value ?? absent) !== undefined) notes.push(`default ${value ?? absent}`);
  if (v1?.default !== undefined) notes.push(`default ${v1.default} with version 1`);
  if (v2?.ignored !== undefined) notes.push("version 1 only");
  if (v1?.refused !== undefined) notes.push("not with version 1");
  return notes.length === 0 ? description : `${description} (${notes.join("; ")})`;
}

/**
 * The command `to-fsdp2`.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { basename } from "node:path";
import type { CommandSpec } from "../../core/contracts/command.ts";
import { ConfigError } from "../../core/contracts/errors.ts";
import { quoted } from "../../core/runtime/names.ts";
import { readText } from "./config/file.ts";
import { convertToFsdp2 } from "./to-fsdp2.ts";
import { writeWhole } from "./write-whole.ts";

/** Converts a config file to FSDP version 2. */
export const toFsdp2Command: CommandSpec = {
  summary: "converts an Accelerate config file from FSDP1 to FSDP2",
  options: {
    "config-file": { type: "string", placeholder: "YAML", description: "the file to convert" },
    "output-file": { type: "string", placeholder: "YAML", description: "where the result goes" },
    overwrite: {
      type: "boolean",
      default: false,
      description: "the output file may exist; without one, the converted file is replaced",
    },
  },
  run: async ({ options, printError }) => {
    const input = options["config-file"];
    if (typeof input !== "string") throw new ConfigError("cannot convert: --config_file is missing");
    const given = options["output-file"];
    if (typeof given !== "string" && options.overwrite !== true) {
      throw new ConfigError("cannot convert: give --output_file, or --overwrite to replace the file itself");
    }
    const output = typeof given === "string" ? given : input;
    const text = await readText(input);
    if (existsSync(output) && options.overwrite !== true) {
      throw new ConfigError(`cannot use --output_file: ${quoted(output)} exists, allowed with --overwrite`);
    }
    const converted = convertToFsdp2(text, basename(input));
    for (const warning of converted.warnings) printError(`warning: ${warning}`);
    await writeWhole(output, converted.text, "--output_file");
    return 0;
  },
};

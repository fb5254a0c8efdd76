/**
 * The command `config`: asks, and writes a config file.
 *
 * @module
 */
import { existsSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import type { CommandSpec } from "../../core/contracts/command.ts";
import { ConfigError } from "../../core/contracts/errors.ts";
import { quoted } from "../../core/runtime/names.ts";
import { askForConfig, type Dialog } from "./questions.ts";
import { writeWhole } from "./write-whole.ts";

/** Writes a config file from answers. */
export const configCommand: CommandSpec = {
  summary: "asks how to train and writes a config file",
  options: {
    "config-file": {
      type: "string",
      placeholder: "YAML",
      default: "accelerate.yaml",
      description: "the file to write",
    },
    overwrite: { type: "boolean", default: false, description: "the file may exist" },
  },
  run: async ({ options, print }) => {
    const path = String(options["config-file"]);
    if (existsSync(path) && options.overwrite !== true) {
      throw new ConfigError(`cannot use --config_file: ${quoted(path)} exists, allowed with --overwrite`);
    }
    // Written when all is answered: whoever leaves before, by Ctrl-C or the end of the input, leaves no file.
    const text = await withDialog(print, askForConfig);
    await writeWhole(path, text, "--config_file");
    print(`wrote ${path}: use it with train --config_file ${path} or launch --config_file ${path} SCRIPT`);
    return 0;
  },
};

/** A dialog over standard input and output, a terminal or a pipe. */
async function withDialog<T>(
  print: (line: string) => void,
  body: (dialog: Dialog) => Promise<T>,
): Promise<T> {
  // The terminal keeps its own line editing, and Ctrl-C its usual meaning.
  const reader = createInterface({ input: process.stdin, terminal: false });
  // Lines may all be there before the second question: an iterator keeps them.
  const lines = reader[Symbol.asyncIterator]();
  try {
    return await body({
      ask: async (prompt) => {
        process.stdout.write(prompt);
        const line = await lines.next();
        return line.done === true ? undefined : line.value;
      },
      say: print,
    });
  } finally {
    reader.close();
  }
}

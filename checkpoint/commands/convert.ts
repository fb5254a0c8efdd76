/**
 * `convert`: a checkpoint from any format to another, under the same flat names. Tensors stay in the shards that they are
 * in where the target has shards; one box is in memory at a time.
 *
 * @module
 */
import type { CommandContext, CommandSpec } from "../../core/contracts/command.ts";
import { STORED_DTYPES } from "../../core/contracts/dtype.ts";
import { CheckpointError, ConfigError } from "../../core/contracts/errors.ts";
import { volume } from "../boxes.ts";
import { listFaults } from "../manifest.ts";
import { toDcp } from "./convert-dcp.ts";
import { toNative } from "./convert-native.ts";
import { toSafetensors } from "./convert-safetensors.ts";
import { findSource } from "./find-source.ts";
import type { CheckpointSource } from "./source.ts";
import { TARGET_OPTIONS } from "./target.ts";
import { printable, sizeText } from "./terminal.ts";

/** Writes a source in a format and tells where it is. */
type Converter = (context: CommandContext, source: CheckpointSource, target: string) => Promise<string>;

const CONVERTERS: Readonly<Record<string, Converter>> = {
  native: toNative,
  safetensors: toSafetensors,
  dcp: toDcp,
};

/** Writes a checkpoint in another format. */
export const convertCommand: CommandSpec = {
  summary: "writes a checkpoint in another format: native, safetensors or DCP",
  positionals: "SRC DST",
  options: {
    to: {
      type: "string",
      choices: Object.keys(CONVERTERS),
      description: "format of DST: a run (native), a file or folder (safetensors), a folder (dcp)",
    },
    step: {
      type: "integer",
      min: 0,
      description: "step of the native checkpoint; the source's own when absent, or 0",
    },
    "skip-unreadable": {
      type: "boolean",
      default: false,
      description: "leave out values that are no plain data, which are listed",
    },
    ...TARGET_OPTIONS,
  },
  run: async (context) => {
    const { registry, options, positionals, print, printError } = context;
    const [location, target] = positionals as [string, string];
    const convert = CONVERTERS[String(options.to)];
    if (convert === undefined) {
      throw new ConfigError(
        `cannot convert: --to is missing, allowed are ${Object.keys(CONVERTERS).join(", ")}`,
      );
    }
    const source = await (await findSource(registry, location)).open();
    try {
      checkLeftOut(source, options["skip-unreadable"] === true);
      const written = await convert(context, source, target);
      const bytes = source.tensors.reduce(
        (sum, { shape, dtype }) => sum + volume(shape) * STORED_DTYPES[dtype].bytes,
        0,
      );
      if (options.json === true) {
        const { format, tensors, values, leftOut } = source;
        const counts = { tensors: tensors.length, values: values.length, bytes };
        print(
          JSON.stringify({
            source: source.location,
            format,
            to: options.to,
            target: written,
            ...counts,
            leftOut,
          }),
        );
        return 0;
      }
      for (const { name, reason } of source.leftOut) printError(printable(`left out ${name}: ${reason}`));
      const content = `${source.tensors.length} tensors, ${sizeText(bytes)}, ${source.values.length} values`;
      print(`${source.location} (${source.format}): ${content} as ${String(options.to)} in ${written}`);
      return 0;
    } finally {
      await source.close();
    }
  },
};

/** Random states cannot be carried by anybody; what else cannot is only left behind when it is asked for. */
function checkLeftOut({ location, leftOut }: CheckpointSource, skip: boolean): void {
  const lost = leftOut.filter(({ name }) => !name.startsWith("random_states"));
  if (skip || lost.length === 0) return;
  const faults = lost.map(({ name, reason }) => `${name}: ${reason}`);
  throw new CheckpointError(`${location}: ${listFaults(faults)}; --skip-unreadable leaves these out`);
}

/**
 * Where a command writes: what stands there is never replaced unless it is asked for.
 *
 * @module
 */
import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { OptionSpec, OptionValue } from "../../core/contracts/command.ts";
import { ConfigError } from "../../core/contracts/errors.ts";
import { parseBytes } from "../../core/runtime/format.ts";
import { exists } from "../formats/write-folder.ts";

/** Options of commands that write. */
export const TARGET_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  overwrite: { type: "boolean", default: false, description: "replace what stands at the target" },
  "max-shard-size": {
    type: "string",
    placeholder: "SIZE",
    description: "cut weights into files of at most this size, for example 5GB, with an index",
  },
};

/** The path of a weights file: `path` itself, or `model.safetensors` in the folder that it names. Its folder is made. */
export async function weightsTarget(
  path: string,
  options: Readonly<Record<string, OptionValue>>,
): Promise<string> {
  const file = path.endsWith(".safetensors") ? path : join(path, "model.safetensors");
  for (const taken of [file, `${file}.index.json`]) await checkFree(taken, options);
  await mkdir(dirname(file), { recursive: true });
  return file;
}

/** @throws ConfigError when something has this name and is not to be replaced. */
export async function checkFree(path: string, options: Readonly<Record<string, OptionValue>>): Promise<void> {
  if (options.overwrite === true || !(await exists(path))) return;
  throw new ConfigError(`cannot write ${JSON.stringify(path)}: it exists already, allowed with --overwrite`);
}

/** Bytes of `--max-shard-size`. @throws ConfigError for what is no size. */
export function maxShardBytes(options: Readonly<Record<string, OptionValue>>): number | undefined {
  const text = options["max-shard-size"];
  if (typeof text !== "string") return undefined;
  const bytes = parseBytes(text);
  if (bytes !== undefined) return bytes;
  throw new ConfigError(
    `cannot use --max-shard-size: given ${JSON.stringify(text)}, allowed are sizes such as 500MB, 5GB, 2GiB`,
  );
}

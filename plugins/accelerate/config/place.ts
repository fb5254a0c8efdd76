/**
 * Where ranks run: command line before config file.
 *
 * @module
 */
import * as v from "valibot";
import type { CommandContext, OptionValue } from "../../../core/contracts/command.ts";
import { ConfigError } from "../../../core/contracts/errors.ts";
import { quoted } from "../../../core/runtime/names.ts";
import { type Place, readPlace } from "../../../core/runtime/place.ts";
import type { ConfigFile } from "./file.ts";

/** What a file may say, with its types. */
const FilePlace = v.object({
  backend: v.nullish(v.string()),
  backend_options: v.nullish(v.record(v.string(), v.union([v.string(), v.number(), v.boolean()]))),
  collective: v.nullish(v.string()),
  num_processes: v.nullish(v.pipe(v.number(), v.safeInteger(), v.minValue(-1), v.maxValue(65536))),
  num_machines: v.nullish(v.pipe(v.number(), v.safeInteger(), v.minValue(1))),
  use_cpu: v.nullish(v.boolean()),
  distributed_type: v.nullish(v.picklist(["FSDP", "NO", "MULTI_CPU", "MULTI_GPU"])),
});

/** Collectives whose ranks are all of this machine. */
const LOCAL: readonly string[] = ["single", "local", "threads"];

/** Where ranks run. @throws ConfigError that names what is wrong. */
export function placeOf(context: CommandContext, file: ConfigFile | undefined): Place {
  if (file === undefined) return readPlace(context.options);
  const parsed = v.safeParse(FilePlace, file.values);
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw new ConfigError(
      `cannot use ${v.getDotPath(issue)} in ${quoted(file.name)}: given ${issue.received}, allowed is ${issue.expected ?? "another value"}`,
    );
  }
  const said = parsed.output;
  const place = readPlace({ ...context.options, ...fromFile(context, said) });
  if ((said.num_machines ?? 1) > 1 && LOCAL.includes(place.collective)) {
    throw new ConfigError(
      `cannot use num_machines in ${quoted(file.name)}: given ${said.num_machines}, allowed is 1 with --collective ${place.collective}`,
    );
  }
  return place;
}

/** Values of the file for options that the command line does not give. */
function fromFile(
  context: CommandContext,
  said: v.InferOutput<typeof FilePlace>,
): Record<string, OptionValue> {
  const values: Record<string, OptionValue> = {
    backend: said.backend ?? (said.use_cpu === true ? "cpu" : undefined),
    "backend-options": Object.entries(said.backend_options ?? {}).map(([key, value]) => `${key}=${value}`),
    collective: said.collective ?? undefined,
    // -1 is Accelerate's way to leave it open.
    "world-size": said.num_processes == null || said.num_processes < 1 ? undefined : said.num_processes,
  };
  return Object.fromEntries(
    Object.entries(values).filter(([name, value]) => value !== undefined && !context.given.has(name)),
  );
}

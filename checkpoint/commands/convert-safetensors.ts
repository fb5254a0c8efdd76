/**
 * Any source as safetensors: whole tensors under their flat names, values as JSON in the file's metadata.
 *
 * @module
 */
import type { CommandContext } from "../../core/contracts/command.ts";
import { FORMAT } from "../../core/contracts/plugin.ts";
import type { Box } from "../../core/contracts/shard.ts";
import { wholeBox } from "../boxes.ts";
import { rankValueName, valueName } from "./dcp-names.ts";
import type { CheckpointSource } from "./source.ts";
import { maxShardBytes, weightsTarget } from "./target.ts";

/** Writes one file, or several behind an index. @returns its path. */
export async function toSafetensors(
  { registry, options }: CommandContext,
  source: CheckpointSource,
  target: string,
): Promise<string> {
  const limit = maxShardBytes(options);
  const file = await weightsTarget(target, options);
  const tensors = source.tensors.map(({ name, dtype, shape }) => ({
    name,
    dtype,
    shape,
    read: () => source.read(name, wholeBox(shape)),
    readBox: (box: Box) => source.read(name, box),
  }));
  const entries = source.values.map(({ name, value }) => [valueName(name, RESERVED), JSON.stringify(value)]);
  for (const [rank, values] of source.rankValues.entries()) {
    for (const [name, value] of Object.entries(values))
      entries.push([rankValueName(rank, name), JSON.stringify(value)]);
  }
  const metadata = { ...Object.fromEntries(entries), format: "pt" };
  await registry.get(FORMAT, "safetensors").write(file, tensors, metadata, { maxShardBytes: limit });
  return file;
}

/** What readers of such files take to say how its tensors are to be understood. */
const RESERVED: ReadonlySet<string> = new Set(["format"]);

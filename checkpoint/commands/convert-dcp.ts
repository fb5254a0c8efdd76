/**
 * Any source as a PyTorch Distributed Checkpoint: a file for each file of the source that holds shards, values as byte
 * items beside the tensors.
 *
 * @module
 */
import type { CommandContext } from "../../core/contracts/command.ts";
import { STORED_DTYPES } from "../../core/contracts/dtype.ts";
import type { DcpTensorSource, DcpValueSource } from "../formats/dcp/writer.ts";
import { writeDcp } from "../formats/dcp/writer.ts";
import { fromJson } from "../formats/pickle/json.ts";
import { cutLarge } from "../formats/slabs.ts";
import { pathOf, rankValueName, valueName } from "./dcp-names.ts";
import { holdersOf, MAX_BOX_BYTES } from "./holders.ts";
import type { CheckpointSource } from "./source.ts";
import { checkFree } from "./target.ts";

/** Writes a folder. @returns its path. */
export async function toDcp(
  { options }: CommandContext,
  source: CheckpointSource,
  target: string,
): Promise<string> {
  await checkFree(target, options);
  const { ranks, worldSize } = holdersOf(source);
  // Every key that has something below it: no value may have the same name.
  const dicts = new Set(source.tensors.flatMap(({ name, path }) => prefixes(path ?? pathOf(name))));
  const tensors = source.tensors.map(
    ({ name, dtype, shape, chunks, path }): DcpTensorSource => ({
      name,
      dtype,
      shape,
      path: path ?? pathOf(name),
      boxes: chunks.flatMap(({ offsets, sizes, file }) =>
        cutLarge({ offsets, sizes }, STORED_DTYPES[dtype].bytes, MAX_BOX_BYTES).map((box) => ({
          ...box,
          rank: ranks[file]!,
        })),
      ),
      read: (box) => source.read(name, box),
    }),
  );
  const values = source.values.map(({ name, value, exact, path, file }): DcpValueSource => {
    const target = valueName(name, dicts);
    const rank = file === undefined ? 0 : ranks[file]!;
    return { name: target, path: path ?? pathOf(target), value: exact ?? fromJson(value), rank };
  });
  for (const [rank, own] of source.rankValues.entries()) {
    for (const [key, value] of Object.entries(own)) {
      const name = rankValueName(rank, key);
      values.push({
        name,
        path: ["rank_values", String(rank), key],
        value: fromJson(value),
        rank: Math.min(rank, worldSize - 1),
      });
    }
  }
  await writeDcp(target, { tensors, values, worldSize }, { overwrite: options.overwrite === true });
  return target;
}

/** The flat names of the dicts above a path. */
function prefixes(path: readonly (string | number)[]): readonly string[] {
  return path.slice(1).map((_, i) => path.slice(0, i + 1).join("."));
}

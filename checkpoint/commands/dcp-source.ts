/**
 * PyTorch Distributed Checkpoints as a source.
 *
 * @module
 */
import { reasonOf } from "../formats/byte-source.ts";
import type { DcpItem } from "../formats/dcp/metadata.ts";
import { type DcpReader, openDcp } from "../formats/dcp/reader.ts";
import { toJson } from "../formats/pickle/json.ts";
import type { CheckpointSource, LeftOut, SourceTensor, SourceValue, Verifiable } from "./source.ts";

/** Opens a folder with `.metadata`. @throws CheckpointError when it is not sound. */
export async function openDcpSource(location: string): Promise<CheckpointSource & Verifiable> {
  const reader = await openDcp(location);
  try {
    const files = [...reader.lengths]
      .map(([name, bytes]) => ({ name, bytes }))
      .sort((a, b) => rankOf(a.name) - rankOf(b.name));
    const indices = new Map(files.map(({ name }, i) => [name, i]));
    const fileOf = ({ file }: DcpItem): number => indices.get(file)!;
    const { paths } = reader.metadata;
    const tensors = reader.metadata.tensors.map(
      ({ name, dtype, shape, chunks }): SourceTensor => ({
        name,
        dtype,
        shape,
        path: paths.get(name),
        chunks: chunks.map((chunk) => ({ offsets: chunk.offsets, sizes: chunk.sizes, file: fileOf(chunk) })),
      }),
    );
    return {
      format: "dcp",
      location,
      worldSize: files.length,
      files,
      tensors,
      ...(await readValues(reader, fileOf)),
      rankValues: [],
      nested: true,
      read: (name, box) => reader.read(name, box),
      verify: () => reader.verify(),
      close: () => reader.close(),
    };
  } catch (error) {
    await reader.close();
    throw error;
  }
}

/** Plain data is carried; whatever else Python pickled is named and left where it is. */
async function readValues(
  reader: DcpReader,
  fileOf: (item: DcpItem) => number,
): Promise<{ values: readonly SourceValue[]; leftOut: readonly LeftOut[] }> {
  const values: SourceValue[] = [];
  const leftOut: LeftOut[] = [];
  for (const item of reader.metadata.values) {
    const { name } = item;
    try {
      const exact = await reader.value(name);
      values.push({
        name,
        value: toJson(exact),
        exact,
        path: reader.metadata.paths.get(name),
        file: fileOf(item),
      });
    } catch (error) {
      leftOut.push({ name, reason: reasonOf(error) });
    }
  }
  return { values, leftOut };
}

/** Files by rank, then number: `__10_0.distcp` comes after `__9_0.distcp`. */
function rankOf(file: string): number {
  const [, rank, number] = /^__(\d+)_(\d+)\./.exec(file) ?? [];
  return Number(rank) + Number(number) / 1e9;
}

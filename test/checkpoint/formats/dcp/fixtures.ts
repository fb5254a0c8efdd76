/**
 * Distributed Checkpoints that PyTorch wrote, and what must be in them. Made as test/fixtures/dcp/README.md says.
 *
 * @module
 */
import { readFile } from "node:fs/promises";
import type { DcpReader } from "../../../../checkpoint/formats/dcp/reader.ts";
import type { DcpState } from "../../../../checkpoint/formats/dcp/writer.ts";
import { openSafetensors } from "../../../../checkpoint/formats/safetensors/reader.ts";
import type { StoredDType } from "../../../../core/contracts/dtype.ts";
import { bytesOf } from "../../../../core/contracts/dtype.ts";
import { fixture } from "../../../support/command.ts";
import type { FullTensor } from "../../states.ts";

/** Small checkpoints with an `expected.safetensors` and an `expected.json` beside each. */
export const DCP_FIXTURES: readonly string[] = [
  "dtypes",
  "fsdp2-world2",
  "fsdp2-world4-empty-shards",
  "hsdp-2x2",
];

/** The folder of a small checkpoint. */
export function dcpFixture(name: string): string {
  return fixture(`dcp/${name}/dcp`);
}

/** Every tensor of a safetensors file. */
export async function tensorsOf(path: string): Promise<ReadonlyMap<string, FullTensor>> {
  const reader = await openSafetensors(path);
  const tensors = new Map<string, FullTensor>();
  for (const name of reader.names) {
    const { dtype, shape }: { dtype: StoredDType; shape: readonly number[] } = reader.info(name);
    tensors.set(name, { name, dtype, shape, bytes: bytesOf(await reader.read(name)) });
  }
  await reader.close();
  return tensors;
}

/** The values of a small checkpoint, by flat name. */
export async function valuesOf(name: string): Promise<Readonly<Record<string, unknown>>> {
  return JSON.parse(await readFile(fixture(`dcp/${name}/expected.json`), "utf8")).values;
}

/** The rank in a file's name. */
export function rankOf(file: string): number {
  return Number(/^__(\d+)_/.exec(file)![1]);
}

/** What a checkpoint holds, to be written again in the same shards and files. */
export async function stateOf(reader: DcpReader): Promise<DcpState> {
  const { tensors, values, paths } = reader.metadata;
  return {
    worldSize: reader.lengths.size,
    tensors: tensors.map(({ name, dtype, shape, chunks }) => ({
      name,
      dtype,
      shape,
      path: paths.get(name)!,
      boxes: chunks.map(({ offsets, sizes, file }) => ({ offsets, sizes, rank: rankOf(file) })),
      read: (box) => reader.read(name, box),
    })),
    values: await Promise.all(
      values.map(async ({ name, file }) => ({
        name,
        path: paths.get(name)!,
        value: await reader.value(name),
        rank: rankOf(file),
      })),
    ),
  };
}

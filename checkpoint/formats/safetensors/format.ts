/**
 * The tensor format "safetensors" over files of this machine.
 *
 * @module
 */
import { rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { NamedTensor, TensorFormat, TensorWriteOptions } from "../../../core/contracts/checkpointer.ts";
import { bytesOf, STORED_DTYPES, type StoredArray } from "../../../core/contracts/dtype.ts";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { volume } from "../../boxes.ts";
import { slabsOf } from "../slabs.ts";
import { writeFileWhole } from "../write-folder.ts";
import { formatIndex, shardName } from "./index-file.ts";
import { type LayoutTensor, layoutSafetensors } from "./layout.ts";
import { openWeights } from "./sharded-reader.ts";

/** Most bytes of one tensor in memory, where it can be read in parts. */
const MAX_SLAB_BYTES = 64 * 1024 * 1024;

/** Reads and writes `.safetensors` files; also reads the files behind an `.index.json`, and Hugging Face folders. */
export const safetensorsFormat: TensorFormat = Object.freeze({
  name: "safetensors",
  open: openWeights,
  write: writeSafetensors,
});

async function writeSafetensors(
  path: string,
  tensors: readonly NamedTensor[],
  metadata: Readonly<Record<string, string>>,
  options: TensorWriteOptions = {},
): Promise<void> {
  const shards = cutShards(tensors, options.maxShardBytes ?? Number.POSITIVE_INFINITY);
  if (shards.length <= 1) {
    await writeFile(path, tensors, metadata);
    return;
  }
  const stem = basename(path).replace(/\.safetensors$/, "");
  const places = new Map<string, string>();
  for (const [i, shard] of shards.entries()) {
    for (const { name } of shard) places.set(name, shardName(stem, i, shards.length));
  }
  if (places.size !== tensors.length) throw new CheckpointError(`write of ${path}: a name comes twice`);
  for (const [i, shard] of shards.entries()) {
    await writeFile(join(dirname(path), shardName(stem, i, shards.length)), shard, metadata);
  }
  const totals = {
    bytes: tensors.reduce((sum, tensor) => sum + byteLength(tensor), 0),
    elements: tensors.reduce((sum, { shape }) => sum + volume(shape), 0),
  };
  const index = new TextEncoder().encode(formatIndex(places, totals));
  await writeFileWhole(`${path}.index.json`, (append) => append(index));
  // A single file of an earlier write would be found first.
  await rm(path, { force: true });
}

/** Tensors in their order, as many to a shard as fit; one that fits nowhere has a shard of its own. */
export function cutShards<T extends LayoutTensor>(
  tensors: readonly T[],
  maxShardBytes: number,
): readonly (readonly T[])[] {
  const shards: T[][] = [];
  let room = 0;
  for (const tensor of tensors) {
    const bytes = byteLength(tensor);
    if (shards.length === 0 || bytes > room) {
      shards.push([]);
      room = maxShardBytes;
    }
    shards.at(-1)!.push(tensor);
    room -= bytes;
  }
  return shards;
}

function byteLength({ shape, dtype }: LayoutTensor): number {
  return volume(shape) * STORED_DTYPES[dtype].bytes;
}

/** Streams tensor by tensor, large ones slab by slab where they can be read so. */
async function writeFile(
  path: string,
  tensors: readonly NamedTensor[],
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  const layout = layoutSafetensors(tensors, metadata);
  await writeFileWhole(path, async (append) => {
    await append(layout.header);
    for (const { tensor, begin, end } of layout.tensors) {
      let written = 0;
      for await (const part of partsOf(tensor, end - begin)) {
        const bytes = bytesOf(part);
        written += bytes.length;
        if (written <= end - begin) await append(bytes);
      }
      if (written !== end - begin) {
        throw new CheckpointError(`${tensor.name} has ${written} bytes, its shape takes ${end - begin}`);
      }
    }
  });
}

async function* partsOf(tensor: NamedTensor, bytes: number): AsyncGenerator<StoredArray> {
  const { readBox, dtype, shape } = tensor;
  if (readBox === undefined || bytes <= MAX_SLAB_BYTES) {
    yield await tensor.read();
    return;
  }
  for (const box of slabsOf(shape, STORED_DTYPES[dtype].bytes, MAX_SLAB_BYTES))
    yield await readBox.call(tensor, box);
}

/**
 * A checkpoint as safetensors files that exist nowhere: the header follows from the manifest, the data is read from the
 * ranks' files as it is sent. The files are those that `merge-weights` writes of the same checkpoint.
 *
 * @module
 */
import type { BlockReader } from "../block-reader.ts";
import { volume, wholeBox } from "../boxes.ts";
import { cutShards } from "../formats/safetensors/format.ts";
import { formatIndex, shardName } from "../formats/safetensors/index-file.ts";
import { layoutSafetensors, type SafetensorsLayout } from "../formats/safetensors/layout.ts";
import type { Manifest, ManifestTensor } from "../manifest.ts";
import { Problem } from "./problem.ts";
import { tensorBytes } from "./tensor-bytes.ts";

/** A tensor under the name that it gets in the export. */
export interface ExportedTensor {
  readonly name: string;
  readonly dtype: ManifestTensor["dtype"];
  readonly shape: readonly number[];
  readonly saved: ManifestTensor;
}

/** A file of an export. */
export interface ExportFile {
  readonly name: string;
  readonly layout: SafetensorsLayout<ExportedTensor>;
}

/** Hugging Face's name of a model in one file. */
export const MODEL_FILE = "model.safetensors";
/** Hugging Face's name of the index of a model in several. */
export const INDEX_FILE = "model.safetensors.index.json";

/** What an export writes beside tensors, as `merge-weights` does. */
const METADATA: Readonly<Record<string, string>> = { format: "pt" };

/**
 * The tensors of an export.
 *
 * @param prefix names that begin so are exported, without it; default: `model.`
 * @throws Problem when there are none.
 */
export function exportedTensors(manifest: Manifest, prefix = "model."): readonly ExportedTensor[] {
  const tensors = manifest.tensors.flatMap((saved): ExportedTensor[] => {
    if (!saved.name.startsWith(prefix) || saved.name === prefix) return [];
    return [{ name: saved.name.slice(prefix.length), dtype: saved.dtype, shape: saved.shape, saved }];
  });
  if (tensors.length > 0) return tensors;
  throw new Problem("unexportable", "no tensor of the checkpoint has a name that begins so", {
    fields: { prefix },
  });
}

/** All tensors in one file. */
export function wholeFile(tensors: readonly ExportedTensor[]): ExportFile {
  return { name: MODEL_FILE, layout: layoutSafetensors(tensors, METADATA) };
}

/** Tensors in order over files of at most `maxShardBytes` bytes of data; one that is larger has a file of its own. */
export function shardFiles(tensors: readonly ExportedTensor[], maxShardBytes: number): readonly ExportFile[] {
  const shards = cutShards(tensors, maxShardBytes);
  if (shards.length === 1) return [wholeFile(tensors)];
  return shards.map((shard, i) => ({
    name: shardName("model", i, shards.length),
    layout: layoutSafetensors(shard, METADATA),
  }));
}

/** The index of an export in several files. */
export function exportIndex(files: readonly ExportFile[]): string {
  const places = new Map<string, string>();
  let bytes = 0;
  let elements = 0;
  for (const { name, layout } of files) {
    for (const { tensor, begin, end } of layout.tensors) {
      places.set(tensor.name, name);
      bytes += end - begin;
      elements += volume(tensor.shape);
    }
  }
  return formatIndex(places, { bytes, elements });
}

/** Bytes `[begin, end)` of an export file, in arrays of their own. */
export async function* exportBytes(
  { layout }: ExportFile,
  openReader: () => BlockReader,
  begin: number,
  end: number,
): AsyncGenerator<Uint8Array> {
  const { header, tensors } = layout;
  if (begin < header.length) yield header.slice(begin, Math.min(end, header.length));
  const reader = openReader();
  try {
    for (const placed of tensors) {
      const from = Math.max(begin, placed.begin);
      const to = Math.min(end, placed.end);
      if (from >= to) continue;
      const { saved } = placed.tensor;
      yield* tensorBytes(reader, saved, wholeBox(saved.shape), from - placed.begin, to - placed.begin);
    }
  } finally {
    await reader.close();
  }
}

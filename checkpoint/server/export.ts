/**
 * A checkpoint as safetensors files that exist nowhere: the header follows from the manifest, the data is read from the
 * ranks' files as it is sent. The files are those that `merge-weights` writes of the same checkpoint, unless a dtype is
 * asked for.
 *
 * @module
 */
import { STORED_DTYPES, type StoredDType } from "../../core/contracts/dtype.ts";
import type { BlockReader } from "../block-reader.ts";
import { volume, wholeBox } from "../boxes.ts";
import { cutShards } from "../formats/safetensors/format.ts";
import { formatIndex, shardName } from "../formats/safetensors/index-file.ts";
import { layoutSafetensors, type SafetensorsLayout } from "../formats/safetensors/layout.ts";
import type { Manifest, ManifestTensor } from "../manifest.ts";
import { castBytes, castTarget } from "./cast-bytes.ts";
import type { NewPiece } from "./pieces.ts";
import { Problem } from "./problem.ts";

/** A tensor under the name, and in the dtype, that it gets in the export. */
export interface ExportedTensor {
  readonly name: string;
  readonly dtype: StoredDType;
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

/** What names of a model's tensors begin with. */
const MODEL_PREFIX = "model.";

/** Whether a checkpoint has anything to export where no prefix is given. */
export function isExportable({ tensors }: Manifest): boolean {
  return tensors.some(({ name }) => isBelow(name, MODEL_PREFIX));
}

function isBelow(name: string, prefix: string): boolean {
  return name.startsWith(prefix) && name !== prefix;
}

/**
 * The tensors of an export.
 *
 * @param prefix names that begin so are exported, without it; default: `model.`
 * @param dtype what floating tensors are converted into, as a module's `to` does; integers stay what they are. Default:
 *   everything stays as it was saved.
 * @throws Problem when there are none, or one cannot be converted.
 */
export function exportedTensors(
  manifest: Manifest,
  {
    prefix = MODEL_PREFIX,
    dtype,
  }: { readonly prefix?: string | undefined; readonly dtype?: string | undefined },
): readonly ExportedTensor[] {
  // A target that no tensor could have is refused although there may be integers alone.
  if (dtype !== undefined) castTarget("float32", dtype);
  const tensors = manifest.tensors.flatMap((saved): ExportedTensor[] => {
    if (!isBelow(saved.name, prefix)) return [];
    const converts = dtype !== undefined && STORED_DTYPES[saved.dtype].floating;
    const as = converts ? castTarget(saved.dtype, dtype) : saved.dtype;
    return [{ name: saved.name.slice(prefix.length), dtype: as, shape: saved.shape, saved }];
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

/** Bytes `[begin, end)` of an export file, in memory of `newPiece` or fresh one, two pieces at a time. */
export async function* exportBytes(
  { layout }: ExportFile,
  openReader: () => BlockReader,
  begin: number,
  end: number,
  newPiece: NewPiece,
): AsyncGenerator<Uint8Array> {
  const { header, tensors } = layout;
  if (begin < header.length) yield header.slice(begin, Math.min(end, header.length));
  const reader = openReader();
  try {
    for (const placed of tensors) {
      const from = Math.max(begin, placed.begin);
      const to = Math.min(end, placed.end);
      if (from >= to) continue;
      const { saved, dtype } = placed.tensor;
      yield* castBytes(
        reader,
        saved,
        wholeBox(saved.shape),
        dtype,
        from - placed.begin,
        to - placed.begin,
        newPiece,
      );
    }
  } finally {
    await reader.close();
  }
}

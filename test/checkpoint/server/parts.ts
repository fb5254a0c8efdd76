/**
 * What ranks upload, made without a checkpointer: data files and rank manifests of a state with one tensor.
 *
 * @module
 */
import { BLOCK_BYTES, hashFile } from "../../../checkpoint/digest.ts";
import { layoutSafetensors } from "../../../checkpoint/formats/safetensors/layout.ts";
import { encodeManifest, type Manifest } from "../../../checkpoint/manifest.ts";
import { partFile, rankFile } from "../../../checkpoint/rank-file.ts";

/** One rank's files. */
export interface Part {
  readonly rank: number;
  readonly file: string;
  readonly data: Uint8Array<ArrayBuffer>;
  readonly manifestFile: string;
  readonly manifest: Uint8Array<ArrayBuffer>;
  readonly decoded: Manifest;
}

/** How the parts of a test differ from a sound save. */
export interface PartOptions {
  /** Tensor rows of each rank; default 4. */
  readonly rows?: number;
  /** Adds to every element. */
  readonly shift?: number;
  /** Changes a rank's part of the manifest. */
  readonly change?: (manifest: Manifest, rank: number) => Manifest;
}

const COLUMNS = 8;

/** The parts of `model.w`, float32 [ranks x rows, 8], element i holding i, dealt by rows. */
export function makeParts(step: number, worldSize: number, options: PartOptions = {}): readonly Part[] {
  const { rows = 4, shift = 0, change = (manifest) => manifest } = options;
  const shape = [rows * worldSize, COLUMNS];
  return Array.from({ length: worldSize }, (_, rank) => {
    const sizes = [rows, COLUMNS];
    const layout = layoutSafetensors(
      [{ name: `model.w@${rank * rows},0`, dtype: "float32" as const, shape: sizes }],
      {},
    );
    const { begin, end } = layout.tensors[0]!;
    const data = new Uint8Array(layout.fileBytes);
    data.set(layout.header);
    const first = rank * rows * COLUMNS;
    const values = Float32Array.from({ length: rows * COLUMNS }, (_, i) => first + i + shift);
    data.set(new Uint8Array(values.buffer), begin);
    const hasher = hashFile();
    hasher.update(data);
    const file = rankFile(rank);
    const decoded = change(
      {
        step,
        worldSize,
        createdAt: 0,
        tensors: [
          {
            name: "model.w",
            dtype: "float32",
            shape,
            chunks: [{ offsets: [rank * rows, 0], sizes, file, begin, end }],
          },
        ],
        files: [{ name: file, block: BLOCK_BYTES, ...hasher.finish() }],
        values: rank === 0 ? { loss: 1 } : {},
        rankValues: [{ rank }],
      },
      rank,
    );
    const manifest = new Uint8Array(encodeManifest(decoded));
    return { rank, file, data, manifestFile: partFile(rank), manifest, decoded };
  });
}

/** All of `model.w` as it should come back. */
export function wholeTensor(worldSize: number, options: PartOptions = {}): Uint8Array<ArrayBuffer> {
  const { rows = 4, shift = 0 } = options;
  const values = Float32Array.from({ length: rows * worldSize * COLUMNS }, (_, i) => i + shift);
  return new Uint8Array(values.buffer);
}

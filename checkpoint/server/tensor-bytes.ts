/**
 * The bytes of a box of a saved tensor, row-major, made from its chunks as they are asked for: any range of them, in
 * memory that depends on neither the tensor nor the range. Every block read is verified.
 *
 * @module
 */
import { STORED_DTYPES } from "../../core/contracts/dtype.ts";
import type { Box } from "../../core/contracts/shard.ts";
import type { BlockReader } from "../block-reader.ts";
import { indexBoxes } from "../box-index.ts";
import { intersectBoxes, volume } from "../boxes.ts";
import type { ManifestTensor } from "../manifest.ts";
import { batches, placeBatch, stridedTransfer } from "../transfer.ts";

/** Bytes made at once. */
const WINDOW_BYTES = 4 * 1024 * 1024;

/** Bytes `[begin, end)` of a box, in arrays of their own. The tensor is of a checked manifest, and the box inside it. */
export async function* tensorBytes(
  reader: BlockReader,
  tensor: ManifestTensor,
  box: Box,
  begin: number,
  end: number,
): AsyncGenerator<Uint8Array> {
  const { bytes: size } = STORED_DTYPES[tensor.dtype];
  const index = indexBoxes(tensor.chunks);
  const perWindow = Math.floor(WINDOW_BYTES / size);
  const last = Math.ceil(end / size);
  for (let at = Math.floor(begin / size); at < last; at += perWindow) {
    const stop = Math.min(at + perWindow, last);
    const window = new Uint8Array((stop - at) * size);
    let filled = 0;
    for (const part of flatBoxes(box.sizes, at, stop)) {
      const target = {
        offsets: part.offsets.map((offset, d) => offset + box.offsets[d]!),
        sizes: part.sizes,
      };
      const length = volume(part.sizes) * size;
      const place = window.subarray(filled, filled + length);
      for (const found of index.overlapping(target)) {
        const chunk = tensor.chunks[found]!;
        const region = intersectBoxes(chunk, target);
        for (const batch of batches(stridedTransfer(chunk.file, chunk.begin, chunk, target, region, size))) {
          placeBatch(batch, await reader.read(chunk.file, batch.begin, batch.end), place);
        }
      }
      filled += length;
    }
    yield window.subarray(Math.max(0, begin - at * size), Math.min(window.length, end - at * size));
  }
}

/**
 * Boxes that together are elements `[begin, end)` of a row-major array, in that order: rows that are whole in one box,
 * and those cut at either end by themselves.
 */
export function* flatBoxes(sizes: readonly number[], begin: number, end: number): Generator<Box> {
  if (begin >= end) return;
  const [, ...inner] = sizes;
  if (sizes.length === 0) {
    yield { offsets: [], sizes: [] };
    return;
  }
  const row = volume(inner);
  const first = Math.floor(begin / row);
  const last = Math.floor(end / row);
  if (first === last) {
    yield* rowBoxes(first, inner, begin - first * row, end - first * row);
    return;
  }
  let whole = first;
  if (begin > first * row) {
    yield* rowBoxes(first, inner, begin - first * row, row);
    whole = first + 1;
  }
  if (last > whole) yield { offsets: [whole, ...inner.map(() => 0)], sizes: [last - whole, ...inner] };
  if (end > last * row) yield* rowBoxes(last, inner, 0, end - last * row);
}

/** Elements `[begin, end)` of one row. */
function* rowBoxes(row: number, inner: readonly number[], begin: number, end: number): Generator<Box> {
  for (const box of flatBoxes(inner, begin, end)) {
    yield { offsets: [row, ...box.offsets], sizes: [1, ...box.sizes] };
  }
}

/**
 * The bytes of a box of a saved tensor, row-major, made from its chunks as they are asked for: any range of them, in
 * memory that depends on neither the tensor nor the range. Every block read is verified.
 *
 * @module
 */
import { STORED_DTYPES } from "../../core/contracts/dtype.ts";
import type { Box } from "../../core/contracts/shard.ts";
import type { BlockReader, ByteRange } from "../block-reader.ts";
import { type BoxIndex, indexBoxes } from "../box-index.ts";
import { volume } from "../boxes.ts";
import { BLOCK_BYTES } from "../digest.ts";
import type { ManifestTensor } from "../manifest.ts";
import { boxTransfers } from "../plan.ts";
import { batches, placeBatch } from "../transfer.ts";
import type { NewPiece } from "./pieces.ts";

/** Bytes put together at once, where they do not lie one after the other. */
const WINDOW_BYTES = 4 * 1024 * 1024;

/**
 * Bytes `[begin, end)` of a box, in memory of `newPiece` or fresh one, two pieces at a time. The tensor is of a checked
 * manifest, and the box inside it.
 */
export async function* tensorBytes(
  reader: BlockReader,
  tensor: ManifestTensor,
  box: Box,
  begin: number,
  end: number,
  newPiece: NewPiece,
): AsyncGenerator<Uint8Array> {
  const index = indexBoxes(tensor.chunks);
  const runs = contiguousRuns(tensor, index, box, begin, end);
  if (runs === undefined) yield* gathered(reader, tensor, index, box, begin, end, newPiece);
  else yield* straight(reader, runs, newPiece);
}

/** Bytes `[begin, end)` of a box, put together from wherever they lie. */
async function* gathered(
  reader: BlockReader,
  tensor: ManifestTensor,
  index: BoxIndex,
  box: Box,
  begin: number,
  end: number,
  newPiece: NewPiece,
): AsyncGenerator<Uint8Array> {
  const { bytes: size } = STORED_DTYPES[tensor.dtype];
  const perWindow = Math.floor(WINDOW_BYTES / size);
  const last = Math.ceil(end / size);
  for (let at = Math.floor(begin / size); at < last; at += perWindow) {
    const stop = Math.min(at + perWindow, last);
    const window = newPiece((stop - at) * size);
    let filled = 0;
    for (const part of flatBoxes(box.sizes, at, stop)) {
      const target = {
        offsets: part.offsets.map((offset, d) => offset + box.offsets[d]!),
        sizes: part.sizes,
      };
      const length = volume(part.sizes) * size;
      const place = window.subarray(filled, filled + length);
      for (const transfer of boxTransfers(tensor, index, target)) {
        for (const batch of batches(transfer)) {
          placeBatch(batch, await reader.read(transfer.file, batch.begin, batch.end), place);
        }
      }
      filled += length;
    }
    yield window.subarray(Math.max(0, begin - at * size), Math.min(window.length, end - at * size));
  }
}

/** A run of a file. */
interface FileRun {
  readonly file: string;
  readonly begin: number;
  readonly end: number;
}

/**
 * Bytes `[begin, end)` of a box as runs of files one after the other, as those of a tensor sharded along its first
 * dimension lie; `undefined` where they do not, or are no multiple of an element into their file.
 */
function contiguousRuns(
  tensor: ManifestTensor,
  index: BoxIndex,
  box: Box,
  begin: number,
  end: number,
): readonly FileRun[] | undefined {
  const { bytes: size } = STORED_DTYPES[tensor.dtype];
  const first = Math.floor(begin / size);
  const last = Math.ceil(end / size);
  const runs: FileRun[] = [];
  let at = first * size;
  for (const part of flatBoxes(box.sizes, first, last)) {
    const offsets = part.offsets.map((offset, d) => offset + box.offsets[d]!);
    const transfers = boxTransfers(tensor, index, { offsets, sizes: part.sizes });
    const origin = at;
    for (const { file, source, target, length, counts } of transfers.toSorted(
      (a, b) => a.target - b.target,
    )) {
      if (counts.length > 0 || origin + target !== at || source % size !== 0) return undefined;
      const from = Math.max(0, begin - at);
      const to = Math.min(length, end - at);
      if (from < to) runs.push({ file, begin: source + from, end: source + to });
      at += length;
    }
  }
  return at === last * size ? runs : undefined;
}

/** The bytes of runs; whole blocks are read into the arrays that are given out. */
async function* straight(
  reader: BlockReader,
  runs: readonly FileRun[],
  newPiece: NewPiece,
): AsyncGenerator<Uint8Array> {
  for await (const { range, bytes } of reader.readAll(blocksOf(runs, newPiece)))
    yield range.into ?? bytes.slice();
}

/** Runs cut where the blocks of their files end. */
function* blocksOf(runs: readonly FileRun[], newPiece: NewPiece): Generator<ByteRange> {
  for (const { file, begin, end } of runs) {
    for (let at = begin; at < end; ) {
      const stop = Math.min(end, at - (at % BLOCK_BYTES) + BLOCK_BYTES);
      const whole = stop - at === BLOCK_BYTES;
      yield { file, begin: at, end: stop, into: whole ? newPiece(BLOCK_BYTES) : undefined };
      at = stop;
    }
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

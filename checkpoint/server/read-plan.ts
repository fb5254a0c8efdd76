/**
 * Read plans for clients that place bytes themselves: which ranges of which files hold some boxes, and where each run of
 * bytes goes. The load planner's transfers, cut where a read would bring too much that nobody wants, and joined where
 * one read serves several; with the checksums of the blocks that a range lies in, by which what was read can be verified.
 *
 * @module
 */
import { STORED_DTYPES, type StoredDType } from "../../core/contracts/dtype.ts";
import type { Box } from "../../core/contracts/shard.ts";
import { type BoxIndex, indexBoxes } from "../box-index.ts";
import { formatBox, insideShape, volume, wholeBox } from "../boxes.ts";
import type { Manifest, ManifestTensor } from "../manifest.ts";
import { boxTransfers } from "../plan.ts";
import { MAX_BATCH_BYTES, type Transfer, transferBytes, transferEnd } from "../transfer.ts";
import { Problem } from "./problem.ts";

/** A box that is wanted; the whole tensor where it has no offsets and sizes. */
export interface WantedBox {
  readonly name: string;
  readonly offsets?: readonly number[] | undefined;
  readonly sizes?: readonly number[] | undefined;
}

/** A box of the answer, in the order of the request. */
export interface PlannedBox extends Box {
  readonly name: string;
  readonly dtype: StoredDType;
  /** Of the box, row-major. */
  readonly bytes: number;
}

/** Runs of bytes in a read: from `source` in the file to `target` in the box, then on by strides, as in `Transfer`. */
export interface PlannedPart extends Omit<Transfer, "file"> {
  /** Index of the box. */
  readonly box: number;
}

/** Bytes `[begin, end)` of a file. */
export interface PlannedRead {
  readonly file: string;
  readonly sha256: string;
  readonly begin: number;
  readonly end: number;
  /** Of the blocks that the range lies in, from the one of its first byte on. */
  readonly crc32: readonly number[];
  readonly parts: readonly PlannedPart[];
}

/** A file that is read. */
export interface PlannedFile {
  readonly file: string;
  readonly sha256: string;
  readonly length: number;
  /** Bytes of a block; the last one may be shorter. */
  readonly block: number;
}

/** A plan. */
export interface ReadPlan {
  readonly boxes: readonly PlannedBox[];
  readonly files: readonly PlannedFile[];
  /** By file, then first byte. */
  readonly reads: readonly PlannedRead[];
}

/** Parts of one plan: about as many as 10 MiB of JSON can tell. */
const MAX_PARTS = 50_000;
/** Block checksums of one plan: those of 400 GiB. */
const MAX_BLOCKS = 400_000;

/**
 * Plans the reads of some boxes.
 *
 * @param manifest a checked one: its chunks cover its tensors
 * @param maxOverRead what a read may bring beside what is wanted of it, as a share of that: 0 for nothing, 1 for as much
 *   again. Where boxes overlap, the bytes count for each.
 * @throws Problem for an unknown tensor, a box outside its shape, and a plan that is too long to be told.
 */
export function planReads(manifest: Manifest, wanted: readonly WantedBox[], maxOverRead: number): ReadPlan {
  const tensors = new Map(manifest.tensors.map((tensor) => [tensor.name, tensor]));
  const indices = new Map<ManifestTensor, BoxIndex>();
  const boxes: PlannedBox[] = [];
  const parts: { readonly file: string; readonly part: PlannedPart }[] = [];
  for (const [b, want] of wanted.entries()) {
    const tensor = tensors.get(want.name);
    if (tensor === undefined) throw unknownTensor(b);
    const box = boxOf(want, tensor, b);
    const { dtype, name } = tensor;
    boxes.push({ name, dtype, ...box, bytes: volume(box.sizes) * STORED_DTYPES[dtype].bytes });
    const index = indices.get(tensor) ?? indexBoxes(tensor.chunks);
    indices.set(tensor, index);
    for (const transfer of boxTransfers(tensor, index, box)) {
      for (const { file, ...part } of cutTransfer(transfer, maxOverRead)) {
        if (parts.length === MAX_PARTS) throw tooLong("parts", MAX_PARTS);
        parts.push({ file, part: { box: b, ...part } });
      }
    }
  }
  const listed = new Map(manifest.files.map((file) => [file.name, file]));
  const files = new Map<string, PlannedFile>();
  let blocks = 0;
  const reads = joinParts(parts, maxOverRead).map(({ file, begin, end, parts }): PlannedRead => {
    const { sha256, length, block, crc32 } = listed.get(file)!;
    files.set(file, { file, sha256, length, block });
    const [first, last] = [Math.floor(begin / block), Math.ceil(end / block)];
    blocks += last - first;
    if (blocks > MAX_BLOCKS) throw tooLong("block checksums", MAX_BLOCKS);
    return { file, sha256, begin, end, crc32: crc32.slice(first, last), parts };
  });
  return { boxes, files: [...files.values()], reads };
}

function boxOf({ offsets, sizes }: WantedBox, { shape }: ManifestTensor, b: number): Box {
  if (offsets === undefined || sizes === undefined) return wholeBox(shape);
  const box = { offsets, sizes };
  if (insideShape(box, shape)) return box;
  throw new Problem("invalid", `tensors.${b}: box ${formatBox(box)} is outside shape [${shape}]`, {
    fields: { box, shape, index: b },
  });
}

function unknownTensor(b: number): Problem {
  return new Problem("invalid", `tensors.${b}: the checkpoint has no tensor of this name`, {
    fields: { index: b },
  });
}

function tooLong(what: string, limit: number): Problem {
  return new Problem(
    "invalid",
    `the plan has more than ${limit} ${what}, allowed are plans of fewer or larger boxes, or with a larger maxOverRead`,
    { fields: { limit } },
  );
}

/** A transfer, or the transfers of its rows where reading over what lies between them would bring too much. */
function* cutTransfer(transfer: Transfer, maxOverRead: number): Generator<Transfer> {
  const { source, target, counts, sourceStrides, targetStrides } = transfer;
  const [count = 0, ...innerCounts] = counts;
  if (count === 0 || transferEnd(transfer) - source <= (1 + maxOverRead) * transferBytes(transfer)) {
    yield transfer;
    return;
  }
  const [sourceStride = 0, ...innerSources] = sourceStrides;
  const [targetStride = 0, ...innerTargets] = targetStrides;
  for (let i = 0; i < count; i++) {
    const row: Transfer = {
      ...transfer,
      source: source + i * sourceStride,
      target: target + i * targetStride,
      counts: innerCounts,
      sourceStrides: innerSources,
      targetStrides: innerTargets,
    };
    yield* cutTransfer(row, maxOverRead);
  }
}

interface Joined {
  readonly file: string;
  readonly begin: number;
  end: number;
  /** Bytes of it that are wanted. */
  wanted: number;
  readonly parts: PlannedPart[];
}

/** Parts as reads: neighbours in a file are one while that brings little beside them, and no more than 8 MiB. */
function joinParts(
  parts: { readonly file: string; readonly part: PlannedPart }[],
  maxOverRead: number,
): readonly Joined[] {
  parts.sort((a, b) => (a.file === b.file ? a.part.source - b.part.source : a.file < b.file ? -1 : 1));
  const reads: Joined[] = [];
  for (const { file, part } of parts) {
    const partEnd = transferEnd({ file, ...part });
    const bytes = transferBytes({ file, ...part });
    const read = reads.at(-1);
    if (read?.file === file) {
      const end = Math.max(read.end, partEnd);
      const extent = end - read.begin;
      const fits = end === read.end || extent <= MAX_BATCH_BYTES;
      if (fits && extent <= (1 + maxOverRead) * (read.wanted + bytes)) {
        read.end = end;
        read.wanted = Math.min(read.wanted + bytes, extent);
        read.parts.push(part);
        continue;
      }
    }
    reads.push({ file, begin: part.source, end: partEnd, wanted: bytes, parts: [part] });
  }
  return reads;
}

/**
 * Writes a PyTorch Distributed Checkpoint that torch.distributed.checkpoint loads: the classes, and their order, that
 * torch's own writer gives; only the path that it was saved to is left out, which would tell where somebody's files are.
 *
 * Follows torch/distributed/checkpoint/filesystem.py and default_planner.py.
 *
 * @module
 */
import { join } from "node:path";
import { bytesOf, STORED_DTYPES, type StoredArray, type StoredDType } from "../../../core/contracts/dtype.ts";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import type { Box } from "../../../core/contracts/shard.ts";
import { formatBox, volume } from "../../boxes.ts";
import { listFaults } from "../../manifest.ts";
import type { PickleValue } from "../pickle/values.ts";
import { writePickle } from "../pickle/writer.ts";
import { tensorValue } from "../torch/tensor-value.ts";
import { writeTorchFile } from "../torch/writer.ts";
import { writeFolderWhole, writeNew } from "../write-folder.ts";
import { type DcpPath, decodeMetadata } from "./metadata.ts";
import { metadataFaults } from "./metadata-check.ts";
import {
  dcpFile,
  encodeMetadata,
  type WrittenChunk,
  type WrittenItem,
  type WrittenTensor,
  type WrittenValue,
} from "./metadata-writer.ts";
import { METADATA_FILE } from "./reader.ts";

/** A box of a tensor, and the number of the file that it goes to. */
export interface DcpBox extends Box {
  readonly rank: number;
}

/** A tensor to be written. */
export interface DcpTensorSource {
  /** Flat name. */
  readonly name: string;
  readonly path: DcpPath;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  /** Disjoint, and together the whole tensor. */
  readonly boxes: readonly DcpBox[];
  /** Elements of a box, row-major; called when its turn comes. */
  read(box: Box): Promise<StoredArray>;
}

/** A value to be written. */
export interface DcpValueSource {
  readonly name: string;
  readonly path: DcpPath;
  readonly value: PickleValue;
  readonly rank: number;
}

/** What to write. */
export interface DcpState {
  readonly tensors: readonly DcpTensorSource[];
  readonly values: readonly DcpValueSource[];
  /** Files; those without an item are empty, as torch leaves them. */
  readonly worldSize: number;
}

/**
 * Writes a checkpoint's folder, one box at a time in memory.
 *
 * @throws CheckpointError when something stands there and is not to be overwritten, or it cannot be written.
 */
export async function writeDcp(
  folder: string,
  state: DcpState,
  options: { readonly overwrite: boolean },
): Promise<void> {
  await writeFolderWhole(folder, options, async (temporary) => {
    const tensors = state.tensors.map(({ boxes, ...tensor }) => ({ ...tensor, boxes: storedBoxes(boxes) }));
    const written = tensors.map(({ boxes }) => new Array<WrittenChunk>(boxes.length));
    const values: WrittenValue[] = [];
    const lengths = new Map<string, number>();
    for (const [rank, entries] of entriesByRank(tensors, state.worldSize).entries()) {
      let at = 0;
      await writeNew(join(temporary, dcpFile(rank)), async (append) => {
        const add = async (value: PickleValue, storage?: Uint8Array): Promise<WrittenItem> => {
          const item = { rank, offset: at, length: await writeTorchFile(append, value, storage) };
          at += item.length;
          return item;
        };
        // Values first, then tensors, as torch does.
        for (const { name, path, value, rank: holder } of state.values) {
          if (holder === rank) values.push({ name, path, ...(await add(value)) });
        }
        for (const { t, b } of entries) {
          const tensor = tensors[t]!;
          const { offsets, sizes } = tensor.boxes[b]!;
          const bytes = bytesOf(await tensor.read({ offsets, sizes }));
          checkBytes(tensor, { offsets, sizes }, bytes);
          written[t]![b] = { offsets, sizes, ...(await add(tensorValue(tensor.dtype, sizes), bytes)) };
        }
      });
      lengths.set(dcpFile(rank), at);
    }
    const described = tensors.map((tensor, t): WrittenTensor => ({ ...tensor, chunks: written[t]! }));
    const metadata = writePickle(encodeMetadata(described, values));
    // What torch does not check when it loads is proven before there is anything to load.
    const faults = metadataFaults(decodeMetadata(metadata), lengths);
    if (faults.length > 0) throw new CheckpointError(listFaults(faults));
    await writeNew(join(temporary, METADATA_FILE), (append) => append(metadata));
  });
}

/** Boxes of each rank, in the order of the tensors. @throws CheckpointError for a rank that there is not. */
function entriesByRank(
  tensors: readonly Pick<DcpTensorSource, "name" | "boxes">[],
  worldSize: number,
): readonly (readonly { readonly t: number; readonly b: number }[])[] {
  const byRank = Array.from({ length: worldSize }, (): { t: number; b: number }[] => []);
  for (const [t, { name, boxes }] of tensors.entries()) {
    for (const [b, box] of boxes.entries()) {
      const entries = byRank[box.rank];
      if (entries === undefined) {
        throw new CheckpointError(
          `tensor ${name}: box ${formatBox(box)} goes to rank ${box.rank} of ${worldSize}`,
        );
      }
      entries.push({ t, b });
    }
  }
  return byRank;
}

/** Items are found by name and offset: an empty box must not stand where a full one begins. */
function storedBoxes(boxes: readonly DcpBox[]): readonly DcpBox[] {
  const full = new Set(boxes.filter(({ sizes }) => !sizes.includes(0)).map(({ offsets }) => String(offsets)));
  return boxes.filter(({ sizes, offsets }) => !(sizes.includes(0) && full.has(String(offsets))));
}

function checkBytes({ name, dtype }: Omit<DcpTensorSource, "path">, box: Box, bytes: Uint8Array): void {
  const due = volume(box.sizes) * STORED_DTYPES[dtype].bytes;
  if (bytes.length === due) return;
  throw new CheckpointError(
    `tensor ${name}: box ${formatBox(box)} gave ${bytes.length} bytes, due are ${due}`,
  );
}

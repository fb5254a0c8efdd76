/**
 * The objects of a `.metadata` that is to be written, class by class as torch builds them.
 *
 * Follows torch/distributed/checkpoint/metadata.py.
 *
 * @module
 */
import type { StoredDType } from "../../../core/contracts/dtype.ts";
import type { Box } from "../../../core/contracts/shard.ts";
import { call, dict, global, object, type PickleValue, tuple } from "../pickle/values.ts";
import { DCP_CLASSES, type DcpPath } from "./metadata.ts";

/** Name of a rank's file. */
export function dcpFile(rank: number): string {
  return `__${rank}_0.distcp`;
}

/** An item as it was written, in bytes of its file. */
export interface WrittenItem {
  /** The rank whose file it is in. */
  readonly rank: number;
  readonly offset: number;
  readonly length: number;
}

/** A value as it was written. */
export interface WrittenValue extends WrittenItem {
  readonly name: string;
  readonly path: DcpPath;
}

/** A box as it was written. */
export interface WrittenChunk extends Box, WrittenItem {}

/** A tensor as it was written. */
export interface WrittenTensor {
  readonly name: string;
  readonly path: DcpPath;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  readonly chunks: readonly WrittenChunk[];
}

/** The pickled form of a checkpoint's metadata. */
export function encodeMetadata(
  tensors: readonly WrittenTensor[],
  values: readonly WrittenValue[],
): PickleValue {
  const entries = [
    ...tensors.map((tensor) => [tensor.name, tensorMetadata(tensor)] as const),
    ...values.map(({ name }) => [name, object(DCP_CLASSES.bytes)] as const),
  ];
  const paths = [...tensors, ...values].map(({ name, path }) => [name, tuple(...path)] as const);
  const items = [
    ...values.map((value) => ({ at: value, key: index(value.name) })),
    ...tensors.flatMap(({ name, chunks }) =>
      distinct(chunks).map((chunk) => ({ at: chunk, key: index(name, chunk) })),
    ),
  ];
  items.sort((a, b) => a.at.rank - b.at.rank || a.at.offset - b.at.offset);
  const storage = items.map(({ key, at }) => [key, place(at)] as const);
  return object(
    DCP_CLASSES.metadata,
    dict([
      ["state_dict_metadata", dict(entries)],
      ["planner_data", dict(paths)],
      ["storage_data", dict(storage)],
      ["storage_meta", null],
      ["version", "1.0.0"],
    ]),
  );
}

function tensorMetadata({ dtype, shape, chunks }: WrittenTensor): PickleValue {
  const properties = tuple(
    global(`torch ${dtype}`),
    call(DCP_CLASSES.layout, "torch.strided"),
    false,
    call(DCP_CLASSES.memoryFormat, 0),
    false,
  );
  return object(
    DCP_CLASSES.tensor,
    dict([
      ["properties", object(DCP_CLASSES.properties, properties)],
      ["size", size(shape)],
      [
        "chunks",
        chunks.map(({ offsets, sizes }) =>
          object(
            DCP_CLASSES.chunk,
            dict([
              ["offsets", size(offsets)],
              ["sizes", size(sizes)],
            ]),
          ),
        ),
      ],
    ]),
  );
}

/** The key of an item; only tensors have an offset. */
function index(name: string, chunk?: Box & { readonly position: number }): PickleValue {
  const fields: [string, PickleValue][] = [
    ["fqn", name],
    ["index", chunk?.position ?? null],
  ];
  if (chunk !== undefined) fields.push(["offset", size(chunk.offsets)]);
  return object(DCP_CLASSES.index, dict(fields));
}

function place({ rank, offset, length }: WrittenItem): PickleValue {
  return object(
    DCP_CLASSES.storage,
    dict([
      ["relative_path", dcpFile(rank)],
      ["offset", offset],
      ["length", length],
    ]),
  );
}

/** Chunks with their positions; of several at one offset (empty ones) the last. */
function distinct(
  chunks: WrittenTensor["chunks"],
): readonly (WrittenChunk & { readonly position: number })[] {
  const byOffset = new Map(chunks.map((chunk, position) => [String(chunk.offsets), { ...chunk, position }]));
  return [...byOffset.values()];
}

function size(extents: readonly number[]): PickleValue {
  return call(DCP_CLASSES.size, tuple(...extents));
}

/**
 * `.metadata` of a PyTorch Distributed Checkpoint: which tensors there are, in which chunks, and where each chunk and each
 * other value lies. A pickle; read by a reader that knows the dozen classes it is made of and nothing else.
 *
 * Follows torch/distributed/checkpoint/metadata.py and filesystem.py.
 *
 * @module
 */
import type { StoredDType } from "../../../core/contracts/dtype.ts";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import type { Box } from "../../../core/contracts/shard.ts";
import { type GlobalUse, readPickle } from "../pickle/reader.ts";
import type { PickleValue } from "../pickle/values.ts";
import { DTYPE_GLOBALS, dtypeOfGlobal } from "../torch/dtypes.ts";
import { callArgs, count, entriesOf, fieldsOf, isObject, itemsOf, text } from "./shapes.ts";

/** Largest `.metadata`, in bytes. */
export const MAX_METADATA_BYTES: number = 256 * 1024 * 1024;

const METADATA = "torch.distributed.checkpoint.metadata";
const OLD = "torch.distributed._shard.sharded_tensor.metadata";

/** Classes that are made into objects. */
type ObjectClass =
  | "metadata"
  | "tensor"
  | "properties"
  | "chunk"
  | "bytes"
  | "index"
  | "storageMeta"
  | "storage";
/** What is called. */
type Callee = "memoryFormat" | "layout" | "size";

/** Classes of a `.metadata`, as globals. */
export const DCP_CLASSES: Readonly<Record<ObjectClass | Callee, string>> = {
  metadata: `${METADATA} Metadata`,
  tensor: `${METADATA} TensorStorageMetadata`,
  properties: `${METADATA} TensorProperties`,
  chunk: `${METADATA} ChunkStorageMetadata`,
  bytes: `${METADATA} BytesStorageMetadata`,
  index: `${METADATA} MetadataIndex`,
  storageMeta: `${METADATA} StorageMeta`,
  storage: "torch.distributed.checkpoint.filesystem _StorageInfo",
  memoryFormat: `${METADATA} _MEM_FORMAT_ENCODING`,
  layout: "torch.serialization _get_layout",
  size: "torch Size",
};

const CALLEES: readonly Callee[] = ["memoryFormat", "layout", "size"];

const GLOBALS: ReadonlyMap<string, GlobalUse> = new Map<string, GlobalUse>([
  ...Object.values(DCP_CLASSES).map((name) => [name, "object"] as const),
  ...CALLEES.map((callee) => [DCP_CLASSES[callee], "call"] as const),
  [`${OLD} TensorProperties`, "object"],
  [`${OLD} MEM_FORMAT_ENCODING`, "call"],
  ["collections OrderedDict", "call"],
  // The path that it was saved to. Read over, never kept: it says where somebody keeps their files.
  ...["pathlib", "pathlib._local"].flatMap((module) =>
    ["PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"].map(
      (name) => [`${module} ${name}`, "call"] as const,
    ),
  ),
  ...DTYPE_GLOBALS.map((name) => [name, "constant"] as const),
]);

/** Where a chunk or value lies: an item of a file. */
export interface DcpItem {
  readonly file: string;
  /** First byte of the item. */
  readonly begin: number;
  readonly end: number;
}

/** A box of a tensor, and its item. Empty boxes have one too. */
export interface DcpChunk extends Box, DcpItem {}

/** A tensor. */
export interface DcpTensor {
  /** Flat name. */
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  readonly chunks: readonly DcpChunk[];
}

/** A value that is no tensor. */
export interface DcpValue extends DcpItem {
  readonly name: string;
}

/** The keys that lead to a value in the nested state: text in dicts, integers in lists. */
export type DcpPath = readonly (string | number)[];

/** A checkpoint's content. */
export interface DcpMetadata {
  readonly tensors: readonly DcpTensor[];
  readonly values: readonly DcpValue[];
  /** Paths by flat name; empty when the checkpoint has none. */
  readonly paths: ReadonlyMap<string, DcpPath>;
}

/**
 * Decodes a `.metadata`. What its parts say of one another is checked by `metadataFaults`.
 *
 * @throws CheckpointError that says what is wrong.
 */
export function decodeMetadata(bytes: Uint8Array): DcpMetadata {
  try {
    if (bytes.length > MAX_METADATA_BYTES) {
      throw new CheckpointError(`it has ${bytes.length} bytes, allowed are ${MAX_METADATA_BYTES}`);
    }
    const fields = fieldsOf(readPickle(bytes, GLOBALS), DCP_CLASSES.metadata);
    const version = fields.get("version");
    if (version !== undefined && version !== "1.0.0") {
      throw new CheckpointError(`its version is ${JSON.stringify(version)}, allowed is "1.0.0"`);
    }
    const items = decodeStorage(fields.get("storage_data") ?? null);
    const tensors: DcpTensor[] = [];
    const values: DcpValue[] = [];
    for (const [key, entry] of entriesOf(fields.get("state_dict_metadata") ?? null)) {
      const name = text(key, "a name");
      if (isObject(entry, DCP_CLASSES.bytes)) values.push({ name, ...itemOf(items, name, undefined) });
      else tensors.push(decodeTensor(name, entry, items));
    }
    return { tensors, values, paths: decodePaths(fields.get("planner_data") ?? null) };
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    throw new CheckpointError(`.metadata: ${error.message}`, { cause: error });
  }
}

function decodeTensor(name: string, entry: PickleValue, items: ReadonlyMap<string, DcpItem>): DcpTensor {
  const fields = fieldsOf(entry, DCP_CLASSES.tensor);
  const properties = fields.get("properties") ?? null;
  const dtype = dtypeProperty(name, properties);
  const shape = sizes(fields.get("size"));
  const chunks = fields.get("chunks") ?? null;
  if (!Array.isArray(chunks)) throw new CheckpointError(`tensor ${name}: it has no list of chunks`);
  return {
    name,
    dtype,
    shape,
    chunks: chunks.map((chunk): DcpChunk => {
      const box = fieldsOf(chunk, DCP_CLASSES.chunk);
      const offsets = sizes(box.get("offsets"));
      return { offsets, sizes: sizes(box.get("sizes")), ...itemOf(items, name, offsets) };
    }),
  };
}

/** The first of a tensor's five properties. */
function dtypeProperty(name: string, properties: PickleValue): StoredDType {
  for (const type of [DCP_CLASSES.properties, `${OLD} TensorProperties`]) {
    if (!isObject(properties, type)) continue;
    const [dtype, layout] = itemsOf(properties.state ?? null);
    const [layoutName] = callArgs(layout ?? null, DCP_CLASSES.layout);
    if (layoutName !== "torch.strided") {
      throw new CheckpointError(
        `tensor ${name}: layout ${JSON.stringify(layoutName)}, allowed is torch.strided`,
      );
    }
    if (dtype === null || typeof dtype !== "object" || !("kind" in dtype) || dtype.kind !== "global") break;
    return dtypeOfGlobal(dtype.name);
  }
  throw new CheckpointError(`tensor ${name}: it has no dtype`);
}

/** Items by the name and offset of what they hold. */
function decodeStorage(storage: PickleValue): ReadonlyMap<string, DcpItem> {
  const items = new Map<string, DcpItem>();
  for (const [key, entry] of entriesOf(storage)) {
    const index = fieldsOf(key, DCP_CLASSES.index);
    const name = text(index.get("fqn") ?? null, "the name of an item");
    const offset = index.get("offset") ?? null;
    const info = fieldsOf(entry, DCP_CLASSES.storage);
    const begin = count(info.get("offset") ?? null, `${name}: offset`);
    const length = count(info.get("length") ?? null, `${name}: length`);
    const transforms = info.get("transform_descriptors") ?? null;
    if (transforms !== null && !(Array.isArray(transforms) && transforms.length === 0)) {
      throw new CheckpointError(`${name}: it is transformed (compressed), which cannot be read`);
    }
    const place = itemKey(name, offset === null ? undefined : sizes(offset));
    if (items.has(place)) throw new CheckpointError(`${name}: two items for one place`);
    if (!Number.isSafeInteger(begin + length)) throw new CheckpointError(`${name}: it ends beyond 2^53`);
    items.set(place, { file: fileName(info.get("relative_path") ?? null, name), begin, end: begin + length });
  }
  return items;
}

function decodePaths(planner: PickleValue): ReadonlyMap<string, DcpPath> {
  const paths = new Map<string, DcpPath>();
  if (planner === null) return paths;
  for (const [key, entry] of entriesOf(planner)) {
    const path = itemsOf(entry).map((part) =>
      typeof part === "number" ? part : text(part, "a part of a path"),
    );
    paths.set(text(key, "a name"), path);
  }
  return paths;
}

function itemOf(
  items: ReadonlyMap<string, DcpItem>,
  name: string,
  offsets: readonly number[] | undefined,
): DcpItem {
  const item = items.get(itemKey(name, offsets));
  if (item !== undefined) return item;
  throw new CheckpointError(
    `${name}: nothing is stored for ${offsets === undefined ? "it" : `its chunk at [${offsets}]`}`,
  );
}

function itemKey(name: string, offsets: readonly number[] | undefined): string {
  return `${offsets === undefined ? "-" : offsets.join(",")} ${name}`;
}

/** The only names that torch gives its files; nothing else is ever opened. */
function fileName(value: PickleValue, name: string): string {
  if (typeof value === "string" && /^__\d{1,9}_\d{1,9}\.distcp$/.test(value)) return value;
  const given = typeof value === "string" ? JSON.stringify(value.slice(0, 140)) : "no text";
  throw new CheckpointError(`${name}: file ${given}, allowed are __<rank>_<number>.distcp`);
}

function sizes(value: PickleValue | undefined): readonly number[] {
  const [tuple] = callArgs(value ?? null, DCP_CLASSES.size);
  const extents = itemsOf(tuple ?? null).map((extent) => count(extent, "an extent"));
  if (extents.length > 32) throw new CheckpointError(`${extents.length} dimensions, allowed are 32`);
  return extents;
}

/**
 * A tensor inside a pickle of torch.save: which storage, and how its elements lie in it.
 *
 * Follows torch/_utils.py (`_rebuild_tensor_v2`, `_rebuild_tensor_v3`, `_rebuild_parameter`) and torch/serialization.py.
 *
 * @module
 */
import { STORED_DTYPES, type StoredDType } from "../../../core/contracts/dtype.ts";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { volume } from "../../boxes.ts";
import type { GlobalUse } from "../pickle/reader.ts";
import { call, global, kindOf, type PickleValue, tuple } from "../pickle/values.ts";
import { DTYPE_GLOBALS, dtypeOfGlobal, storageGlobal } from "./dtypes.ts";

const REBUILD_TYPED = "torch._utils _rebuild_tensor_v2";
const REBUILD_UNTYPED = "torch._utils _rebuild_tensor_v3";
const REBUILD_PARAMETER = "torch._utils _rebuild_parameter";
const ORDERED_DICT = "collections OrderedDict";
const UNTYPED = "torch.storage UntypedStorage";

/** What a file of torch.save may name: tensors and plain data. */
export const TENSOR_GLOBALS: ReadonlyMap<string, GlobalUse> = new Map<string, GlobalUse>([
  ...DTYPE_GLOBALS.map((name) => [name, "constant"] as const),
  [REBUILD_TYPED, "call"],
  [REBUILD_UNTYPED, "call"],
  [REBUILD_PARAMETER, "call"],
  [ORDERED_DICT, "call"],
  ["torch Size", "call"],
  ["torch device", "call"],
  ["_codecs encode", "call"],
]);

/** A tensor over a storage. */
export interface TensorValue {
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  /** In elements. */
  readonly strides: readonly number[];
  /** First element in the storage. */
  readonly offset: number;
  /** Name of the storage: the record `data/<key>`. */
  readonly storage: string;
  /** Elements of the storage. */
  readonly storageNumel: number;
}

/** The tensor that a value is; `undefined` for any other value. @throws CheckpointError when it is one that cannot be. */
export function tensorOf(value: PickleValue): TensorValue | undefined {
  if (value === null || typeof value !== "object" || !("kind" in value) || value.kind !== "call")
    return undefined;
  if (value.callee === REBUILD_PARAMETER)
    return value.args[0] === undefined ? undefined : tensorOf(value.args[0]);
  const typed = value.callee === REBUILD_TYPED;
  if (!typed && value.callee !== REBUILD_UNTYPED) return undefined;
  const [storage, offset, size, stride, , , dtype] = value.args;
  const id = itemsOf(
    storage !== null && typeof storage === "object" && "kind" in storage && storage.kind === "persistent"
      ? storage.id
      : null,
  );
  const [tag, type, key, , count] = id;
  if (tag !== "storage" || typeof key !== "string" || !/^\d{1,9}$/.test(key)) {
    throw new CheckpointError("a tensor without a storage");
  }
  const storageType = globalOf(type);
  if (!typed && storageType !== UNTYPED) throw new CheckpointError(`a tensor over ${storageType}`);
  const name = dtypeOfGlobal(typed ? storageType : globalOf(dtype));
  const tensor: TensorValue = {
    dtype: name,
    shape: itemsOf(size).map(asCount),
    strides: itemsOf(stride).map(asCount),
    offset: asCount(offset),
    storage: key,
    storageNumel: typed ? asCount(count) : asCount(count) / STORED_DTYPES[name].bytes,
  };
  checkTensor(tensor);
  return tensor;
}

/** Every element must lie in the storage, which must have room for all of them: no tensor is larger than its file. */
function checkTensor({ shape, strides, offset, storageNumel }: TensorValue): void {
  const elements = volume(shape);
  const given = `shape [${shape}] with strides [${strides}] from ${offset} in ${storageNumel} elements`;
  if (shape.length !== strides.length || shape.length > 32 || !Number.isSafeInteger(storageNumel)) {
    throw new CheckpointError(`a tensor of ${given}`);
  }
  if (elements === 0) return;
  const last = shape.reduce((sum, extent, d) => sum + (extent - 1) * strides[d]!, offset);
  if (!(elements <= storageNumel && last < storageNumel)) throw new CheckpointError(`a tensor of ${given}`);
}

/** The value that torch.save makes of a row-major tensor that fills storage `0`. */
export function tensorValue(dtype: StoredDType, shape: readonly number[]): PickleValue {
  const elements = volume(shape);
  const strides: number[] = [];
  let stride = 1;
  for (let d = shape.length - 1; d >= 0; d--) {
    strides.unshift(stride);
    stride *= Math.max(1, shape[d]!);
  }
  const storage = storageGlobal(dtype);
  const count = storage === undefined ? elements * STORED_DTYPES[dtype].bytes : elements;
  const id = tuple("storage", global(storage ?? UNTYPED), "0", "cpu", count);
  const args: readonly PickleValue[] = [
    { kind: "persistent", id },
    0,
    tuple(...shape),
    tuple(...strides),
    false,
    call(ORDERED_DICT),
  ];
  return storage === undefined
    ? call(REBUILD_UNTYPED, ...args, global(`torch ${dtype}`))
    : call(REBUILD_TYPED, ...args);
}

/** Whether elements lie row-major without gaps. */
export function isRowMajor({ shape, strides }: TensorValue): boolean {
  let due = 1;
  for (let d = shape.length - 1; d >= 0; d--) {
    if (shape[d]! !== 1 && strides[d] !== due) return shape.includes(0);
    due *= shape[d]!;
  }
  return true;
}

function globalOf(value: PickleValue | undefined): string {
  if (value !== null && typeof value === "object" && "kind" in value && value.kind === "global")
    return value.name;
  throw new CheckpointError(`a ${kindOf(value ?? null)} where a dtype is due`);
}

function itemsOf(value: PickleValue | undefined): readonly PickleValue[] {
  if (value !== null && typeof value === "object" && "kind" in value) {
    if (value.kind === "tuple") return value.items;
    if (value.kind === "call" && value.callee === "torch Size") return itemsOf(value.args[0]);
  }
  throw new CheckpointError(`a ${kindOf(value ?? null)} where a tuple is due`);
}

function asCount(value: PickleValue | undefined): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw new CheckpointError(`a ${kindOf(value ?? null)} where a count is due`);
}

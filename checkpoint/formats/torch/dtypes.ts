/**
 * PyTorch's names for element types: as `torch.<dtype>`, and as the storage classes that torch.save uses for the older of
 * them. Newer ones are saved as untyped storages beside their dtype.
 *
 * @module
 */
import { STORED_DTYPES, type StoredDType } from "../../../core/contracts/dtype.ts";
import { CheckpointError } from "../../../core/contracts/errors.ts";

const STORAGES: ReadonlyMap<StoredDType, string> = new Map([
  ["float32", "FloatStorage"],
  ["float64", "DoubleStorage"],
  ["float16", "HalfStorage"],
  ["bfloat16", "BFloat16Storage"],
  ["int64", "LongStorage"],
  ["int32", "IntStorage"],
  ["int16", "ShortStorage"],
  ["int8", "CharStorage"],
  ["uint8", "ByteStorage"],
  ["bool", "BoolStorage"],
  ["complex64", "ComplexFloatStorage"],
]);

const BY_STORAGE: ReadonlyMap<string, StoredDType> = new Map(
  [...STORAGES].map(([dtype, storage]) => [`torch ${storage}`, dtype]),
);

/** Types that PyTorch has and no format of this project carries: named, so that a message can say so. */
const FOREIGN: readonly string[] = ["complex128", "complex32", "float4_e2m1fn_x2"];

/** Globals of dtypes and storages. */
export const DTYPE_GLOBALS: readonly string[] = [
  ...Object.keys(STORED_DTYPES).map((dtype) => `torch ${dtype}`),
  ...FOREIGN.map((dtype) => `torch ${dtype}`),
  ...BY_STORAGE.keys(),
  "torch ComplexDoubleStorage",
  "torch.storage UntypedStorage",
];

/** The dtype that a global `torch float32` or `torch FloatStorage` means. @throws CheckpointError for types that cannot be carried. */
export function dtypeOfGlobal(name: string): StoredDType {
  const bare = name.replace(/^torch /, "");
  if (Object.hasOwn(STORED_DTYPES, bare)) return bare as StoredDType;
  const dtype = BY_STORAGE.get(name);
  if (dtype !== undefined) return dtype;
  throw new CheckpointError(`dtype ${bare}: allowed are ${Object.keys(STORED_DTYPES).join(", ")}`);
}

/** The storage class of a dtype, as a global; `undefined` for those that are saved untyped. */
export function storageGlobal(dtype: StoredDType): string | undefined {
  const storage = STORAGES.get(dtype);
  return storage === undefined ? undefined : `torch ${storage}`;
}

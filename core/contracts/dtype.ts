/**
 * Element types: their sizes, their names in safetensors, and the host arrays that hold them.
 *
 * Tensors on a device have a `DType`. Files may carry more kinds, which pass through checkpoints and conversions as they
 * are: `StoredDType`.
 *
 * What has no typed array in JavaScript has its raw bits as host form, in an unsigned array of the element's size:
 * bfloat16 in a `Uint16Array`, 8-bit floats in a `Uint8Array`, complex64 in a `BigUint64Array`.
 *
 * @module
 */

/** Element type of a tensor, with PyTorch's names. */
export type DType = "float32" | "float64" | "float16" | "bfloat16" | "int32" | "int64" | "uint8" | "bool";

/** Element type of a tensor in a file, with PyTorch's names. */
export type StoredDType =
  | DType
  | "int8"
  | "int16"
  | "uint16"
  | "uint32"
  | "uint64"
  | "float8_e4m3fn"
  | "float8_e5m2"
  | "float8_e4m3fnuz"
  | "float8_e5m2fnuz"
  | "float8_e8m0fnu"
  | "complex64";

/** Host memory that holds elements of some dtype. */
export type HostArray =
  | Float32Array
  | Float64Array
  | Float16Array
  | Uint16Array
  | Int32Array
  | BigInt64Array
  | Uint8Array;

/** Host memory that holds elements of some stored dtype. */
export type StoredArray = HostArray | Int8Array | Int16Array | Uint32Array | BigUint64Array;

/** Facts about one dtype. */
export interface DTypeInfo {
  /** Bytes of one element. */
  readonly bytes: number;
  /** Whether gradients can flow through it. */
  readonly floating: boolean;
  /** Name in a safetensors header. */
  readonly safetensors: string;
}

/** Table of all dtypes that devices hold. */
export const DTYPES: Readonly<Record<DType, DTypeInfo>> = {
  float32: { bytes: 4, floating: true, safetensors: "F32" },
  float64: { bytes: 8, floating: true, safetensors: "F64" },
  float16: { bytes: 2, floating: true, safetensors: "F16" },
  bfloat16: { bytes: 2, floating: true, safetensors: "BF16" },
  int32: { bytes: 4, floating: false, safetensors: "I32" },
  int64: { bytes: 8, floating: false, safetensors: "I64" },
  uint8: { bytes: 1, floating: false, safetensors: "U8" },
  bool: { bytes: 1, floating: false, safetensors: "BOOL" },
};

/** Table of all dtypes that files hold. */
export const STORED_DTYPES: Readonly<Record<StoredDType, DTypeInfo>> = {
  ...DTYPES,
  int8: { bytes: 1, floating: false, safetensors: "I8" },
  int16: { bytes: 2, floating: false, safetensors: "I16" },
  uint16: { bytes: 2, floating: false, safetensors: "U16" },
  uint32: { bytes: 4, floating: false, safetensors: "U32" },
  uint64: { bytes: 8, floating: false, safetensors: "U64" },
  float8_e4m3fn: { bytes: 1, floating: true, safetensors: "F8_E4M3" },
  float8_e5m2: { bytes: 1, floating: true, safetensors: "F8_E5M2" },
  float8_e4m3fnuz: { bytes: 1, floating: true, safetensors: "F8_E4M3FNUZ" },
  float8_e5m2fnuz: { bytes: 1, floating: true, safetensors: "F8_E5M2FNUZ" },
  float8_e8m0fnu: { bytes: 1, floating: true, safetensors: "F8_E8M0" },
  complex64: { bytes: 8, floating: false, safetensors: "C64" },
};

/** Whether devices hold tensors of a stored dtype. */
export function isDeviceDType(dtype: StoredDType): dtype is DType {
  return Object.hasOwn(DTYPES, dtype);
}

/** The dtype in which sums and statistics over elements of `dtype` are kept: float32 for 16-bit types, else itself. */
export function accumulatorDType(dtype: DType): DType {
  return dtype === "float16" || dtype === "bfloat16" ? "float32" : dtype;
}

/**
 * A host array of `length` elements over `buffer` from `byteOffset`.
 *
 * @throws RangeError when the range is outside the buffer or unaligned for the dtype.
 */
export function hostArray(
  dtype: DType,
  buffer: ArrayBufferLike,
  byteOffset: number,
  length: number,
): HostArray;
export function hostArray(
  dtype: StoredDType,
  buffer: ArrayBufferLike,
  byteOffset: number,
  length: number,
): StoredArray;
export function hostArray(
  dtype: StoredDType,
  buffer: ArrayBufferLike,
  byteOffset: number,
  length: number,
): StoredArray {
  switch (dtype) {
    case "float32":
      return new Float32Array(buffer, byteOffset, length);
    case "float64":
      return new Float64Array(buffer, byteOffset, length);
    case "float16":
      return new Float16Array(buffer, byteOffset, length);
    case "bfloat16":
    case "uint16":
      return new Uint16Array(buffer, byteOffset, length);
    case "int32":
      return new Int32Array(buffer, byteOffset, length);
    case "int64":
      return new BigInt64Array(buffer, byteOffset, length);
    case "int8":
      return new Int8Array(buffer, byteOffset, length);
    case "int16":
      return new Int16Array(buffer, byteOffset, length);
    case "uint32":
      return new Uint32Array(buffer, byteOffset, length);
    case "uint64":
    case "complex64":
      return new BigUint64Array(buffer, byteOffset, length);
    case "uint8":
    case "bool":
    case "float8_e4m3fn":
    case "float8_e5m2":
    case "float8_e4m3fnuz":
    case "float8_e5m2fnuz":
    case "float8_e8m0fnu":
      return new Uint8Array(buffer, byteOffset, length);
  }
}

/** A fresh zero-filled host array. */
export function newHostArray(dtype: DType, length: number): HostArray;
export function newHostArray(dtype: StoredDType, length: number): StoredArray;
export function newHostArray(dtype: StoredDType, length: number): StoredArray {
  return hostArray(dtype, new ArrayBuffer(length * STORED_DTYPES[dtype].bytes), 0, length);
}

/** The bytes of a host array, without a copy. */
export function bytesOf(array: StoredArray): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

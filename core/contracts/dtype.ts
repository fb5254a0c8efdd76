/**
 * Element types: their sizes, their names in safetensors, and the host arrays that hold them.
 *
 * bfloat16 has no typed array in JavaScript: its host form is the raw 16 bits in a `Uint16Array`.
 *
 * @module
 */

/** Element type of a tensor, with PyTorch's names. */
export type DType = "float32" | "float64" | "float16" | "bfloat16" | "int32" | "int64" | "uint8" | "bool";

/** Host memory that holds elements of some dtype. */
export type HostArray =
  | Float32Array
  | Float64Array
  | Float16Array
  | Uint16Array
  | Int32Array
  | BigInt64Array
  | Uint8Array;

/** Facts about one dtype. */
export interface DTypeInfo {
  /** Bytes of one element. */
  readonly bytes: number;
  /** Whether gradients can flow through it. */
  readonly floating: boolean;
  /** Name in a safetensors header. */
  readonly safetensors: string;
}

/** Table of all dtypes. */
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
): HostArray {
  switch (dtype) {
    case "float32":
      return new Float32Array(buffer, byteOffset, length);
    case "float64":
      return new Float64Array(buffer, byteOffset, length);
    case "float16":
      return new Float16Array(buffer, byteOffset, length);
    case "bfloat16":
      return new Uint16Array(buffer, byteOffset, length);
    case "int32":
      return new Int32Array(buffer, byteOffset, length);
    case "int64":
      return new BigInt64Array(buffer, byteOffset, length);
    case "uint8":
    case "bool":
      return new Uint8Array(buffer, byteOffset, length);
  }
}

/** A fresh zero-filled host array. */
export function newHostArray(dtype: DType, length: number): HostArray {
  return hostArray(dtype, new ArrayBuffer(length * DTYPES[dtype].bytes), 0, length);
}

/** The bytes of a host array, without a copy. */
export function bytesOf(array: HostArray): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

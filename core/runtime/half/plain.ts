/**
 * 16-bit floats to float32 and back in plain TypeScript: what the WebAssembly twin is tested against, and what runs
 * where there is no SIMD. Narrowing rounds to nearest even; a NaN stays one.
 *
 * @module
 */
import type { DType } from "../../contracts/dtype.ts";

/** The 16-bit float dtypes. */
export type HalfDType = "float16" | "bfloat16";

/** Whether elements of a dtype are 16-bit floats. */
export function isHalf(dtype: DType): dtype is HalfDType {
  return dtype === "float16" || dtype === "bfloat16";
}

/**
 * Converts `rows` x `columns` elements within one memory. `from` and `to` are byte addresses, aligned to their elements;
 * strides count elements between rows.
 */
export type ConvertRows = (
  dtype: HalfDType,
  from: number,
  fromStride: number,
  to: number,
  toStride: number,
  rows: number,
  columns: number,
) => void;

/** Conversions within one memory. */
export interface HalfConverter {
  /** 16-bit floats to float32. */
  readonly widenRows: ConvertRows;
  /** Float32 to 16-bit floats. */
  readonly narrowRows: ConvertRows;
}

const SCRATCH_FLOAT = new Float32Array(1);
const SCRATCH_BITS = new Uint32Array(SCRATCH_FLOAT.buffer);

/** The bfloat16 nearest to `value` rounded to float32, as its 16 bits. */
export function toBfloat16(value: number): number {
  SCRATCH_FLOAT[0] = value;
  return roundToBfloat16(SCRATCH_BITS[0]!);
}

/** The value of bfloat16 bits. */
export function fromBfloat16(bits: number): number {
  SCRATCH_BITS[0] = bits << 16;
  return SCRATCH_FLOAT[0]!;
}

/** Float32 bits to bfloat16 bits. */
export function roundToBfloat16(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** The conversions over whatever memory `buffer` gives at the time of a call. */
export function plainConverter(buffer: () => ArrayBufferLike): HalfConverter {
  return {
    widenRows(dtype, from, fromStride, to, toStride, rows, columns) {
      const memory = buffer();
      for (let row = 0; row < rows; row++) {
        const [source, target] = [from + 2 * row * fromStride, to + 4 * row * toStride];
        if (dtype === "float16") {
          const values = new Float16Array(memory, source, columns);
          new Float32Array(memory, target, columns).set(values);
          continue;
        }
        const words = new Uint16Array(memory, source, columns);
        const bits = new Uint32Array(memory, target, columns);
        for (let i = 0; i < columns; i++) bits[i] = words[i]! << 16;
      }
    },
    narrowRows(dtype, from, fromStride, to, toStride, rows, columns) {
      const memory = buffer();
      for (let row = 0; row < rows; row++) {
        const [source, target] = [from + 4 * row * fromStride, to + 2 * row * toStride];
        if (dtype === "float16") {
          const values = new Float32Array(memory, source, columns);
          new Float16Array(memory, target, columns).set(values);
          continue;
        }
        const bits = new Uint32Array(memory, source, columns);
        const words = new Uint16Array(memory, target, columns);
        for (let i = 0; i < columns; i++) words[i] = roundToBfloat16(bits[i]!);
      }
    },
  };
}

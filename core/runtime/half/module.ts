/**
 * 16-bit floats in WebAssembly SIMD: conversions and sums in one shared memory, of which the module keeps nothing for
 * itself.
 *
 * @module
 */
import { half } from "./module.generated.ts";
import type { HalfConverter } from "./plain.ts";

/** The module at work in one memory. Addresses are in bytes. */
export interface HalfModule extends HalfConverter {
  /** `total[i] = total[i] + term[i]` over `length` float32, or the larger of both, NaN if one is. */
  combine(op: "sum" | "max", total: number, term: number, length: number): void;
  /** `total[i] = total[i] / divisor` over `length` float32. */
  divide(total: number, length: number, divisor: number): void;
}

/** What the module exports: see assembly/. */
type Exports = Readonly<Record<keyof HalfModule, (...args: readonly number[]) => void>>;

const DTYPE_CODES = { float16: 0, bfloat16: 1 } as const;
const OP_CODES = { sum: 0, max: 1 } as const;

/** Compiled once for all memories of a thread. */
let compiled: { readonly module: WebAssembly.Module | undefined } | undefined;

function compile(): WebAssembly.Module | undefined {
  const bytes = Uint8Array.from(atob(half), (c) => c.charCodeAt(0));
  return WebAssembly.validate(bytes) ? new WebAssembly.Module(bytes) : undefined;
}

/** The module over a shared memory, or `undefined` when this runtime has no SIMD in WebAssembly. */
export function loadHalf(memory: WebAssembly.Memory): HalfModule | undefined {
  compiled ??= { module: compile() };
  if (compiled.module === undefined) return undefined;
  const instance = new WebAssembly.Instance(compiled.module, { env: { memory } });
  const exports = instance.exports as unknown as Exports;
  return {
    widenRows: (dtype, from, fromStride, to, toStride, rows, columns) =>
      exports.widenRows(DTYPE_CODES[dtype], from, fromStride, to, toStride, rows, columns),
    narrowRows: (dtype, from, fromStride, to, toStride, rows, columns) =>
      exports.narrowRows(DTYPE_CODES[dtype], from, fromStride, to, toStride, rows, columns),
    combine: (op, total, term, length) => exports.combine(OP_CODES[op], total, term, length),
    divide: (total, length, divisor) => exports.divide(total, length, divisor),
  };
}

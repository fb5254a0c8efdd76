/**
 * The one door to matrix multiplication. Engines work on byte addresses in the device's memory, so that strided slices
 * and scratch cost nothing.
 *
 * @module
 */
import type { DType } from "../../../core/contracts/dtype.ts";

/**
 * `C = alpha * op(A) x op(B) (+ C)`, row-major: op(A) is m x k, op(B) k x n, C m x n. `a`, `b`, `c` are byte addresses;
 * `lda`, `ldb`, `ldc` count elements between rows as stored. No extent is 0.
 */
export type GemmFunction = (
  m: number,
  n: number,
  k: number,
  alpha: number,
  a: number,
  lda: number,
  transposeA: boolean,
  b: number,
  ldb: number,
  transposeB: boolean,
  c: number,
  ldc: number,
  accumulate: boolean,
) => void;

/** A way to multiply matrices. */
export interface GemmEngine {
  readonly name: "blas" | "wasm" | "plain";
  readonly float32: GemmFunction;
  readonly float64: GemmFunction;
}

/** The engine's function for a dtype that kernels compute in. */
export function gemmOf(engine: GemmEngine, dtype: DType): GemmFunction {
  return dtype === "float64" ? engine.float64 : engine.float32;
}

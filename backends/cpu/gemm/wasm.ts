/**
 * Matrix multiplication by the WebAssembly kernel; float64 by plain TypeScript.
 *
 * @module
 */
import type { WasmKernels } from "../wasm/load.ts";
import type { GemmEngine } from "./gemm.ts";

/** The engine over a module that lives in the device's memory. */
export function wasmEngine(kernels: WasmKernels, plain: GemmEngine): GemmEngine {
  return {
    name: "wasm",
    float32: (m, n, k, alpha, a, lda, transposeA, b, ldb, transposeB, c, ldc, accumulate) =>
      kernels.sgemm(m, n, k, alpha, a, lda, +transposeA, b, ldb, +transposeB, c, ldc, +accumulate),
    float64: plain.float64,
  };
}

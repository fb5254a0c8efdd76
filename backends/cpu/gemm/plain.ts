/**
 * Matrix multiplication in plain TypeScript: the twin that the fast engines are tested against, and float64 where no
 * BLAS is found. Blocks of op(B) are packed so that the inner loop runs over contiguous memory.
 *
 * @module
 */
import type { Floats, Heap } from "../kernels/heap.ts";
import type { GemmEngine, GemmFunction } from "./gemm.ts";

/** Rows and columns of a packed block of op(B): 64 x 128 float64 are 64 KiB. */
const BLOCK_K = 64;
const BLOCK_N = 128;

/** The plain engine over a device's memory. */
export function plainEngine(heap: Heap): GemmEngine {
  return {
    name: "plain",
    float32: gemm(() => heap.float32(), 4),
    float64: gemm(() => heap.float64(), 8),
  };
}

function gemm(memory: () => Floats, bytes: number): GemmFunction {
  const packed = new Float64Array(BLOCK_K * BLOCK_N);
  const sums = new Float64Array(BLOCK_N);
  return (m, n, k, alpha, a, lda, transposeA, b, ldb, transposeB, c, ldc, accumulate) => {
    const data = memory();
    const [aRow, aColumn] = transposeA ? [1, lda] : [lda, 1];
    const [bRow, bColumn] = transposeB ? [1, ldb] : [ldb, 1];
    for (let j0 = 0; j0 < n; j0 += BLOCK_N) {
      const columns = Math.min(BLOCK_N, n - j0);
      for (let k0 = 0; k0 < k; k0 += BLOCK_K) {
        const depth = Math.min(BLOCK_K, k - k0);
        for (let p = 0; p < depth; p++) {
          const from = b / bytes + (k0 + p) * bRow + j0 * bColumn;
          for (let j = 0; j < columns; j++) packed[p * BLOCK_N + j] = data[from + j * bColumn]!;
        }
        for (let i = 0; i < m; i++) {
          sums.fill(0, 0, columns);
          const row = a / bytes + i * aRow + k0 * aColumn;
          for (let p = 0; p < depth; p++) {
            const x = data[row + p * aColumn]!;
            const at = p * BLOCK_N;
            for (let j = 0; j < columns; j++) sums[j]! += x * packed[at + j]!;
          }
          const to = c / bytes + i * ldc + j0;
          const keep = accumulate || k0 > 0;
          for (let j = 0; j < columns; j++) data[to + j] = alpha * sums[j]! + (keep ? data[to + j]! : 0);
        }
      }
    }
  };
}

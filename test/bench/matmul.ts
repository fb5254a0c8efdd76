/**
 * Speed of the CPU's matrix engines: `bun test/bench/matmul.ts [threads share]`. Prints GFLOP/s, the best of a few runs,
 * for square float32 matrices, A x B and A x transposed B.
 *
 * @module
 */
import { cpuBackend } from "../../backends/cpu/mod.ts";
import type { MatrixOperand } from "../../core/contracts/kernels.ts";

/** Prints the rates of every engine that is there. `localWorldSize` ranks share the machine: each gets its part of the cores. */
export async function printMatmulRates(localWorldSize: number): Promise<void> {
  for (const matmul of ["blas", "wasm", "plain"]) {
    try {
      const backend = await cpuBackend.create({ settings: { matmul }, localWorldSize });
      console.log(backend.description);
      for (const n of [128, 256, 512, 1024]) {
        const [a, b, out] = [0, 1, 2].map((seed): MatrixOperand => {
          const values = Float32Array.from({ length: n * n }, (_, i) => Math.sin(i + seed));
          const buffer = backend.allocate(values.byteLength, "activation");
          const span = { buffer, dtype: "float32", offset: 0, length: n * n } as const;
          backend.write(span, values);
          return { span, rowStride: n, batchStride: 0, transposed: false };
        }) as [MatrixOperand, MatrixOperand, MatrixOperand];
        const speeds = [false, true].map((transposed) => {
          const flops = 2 * n ** 3;
          const times = Math.max(1, Math.round(3e8 / flops));
          let best = 0;
          for (let run = 0; run < (matmul === "plain" ? 2 : 6); run++) {
            const start = performance.now();
            for (let i = 0; i < times; i++) {
              backend.kernels.matmul({ a, b: { ...b, transposed }, out, batch: 1, m: n, n, k: n });
            }
            best = Math.max(best, (flops * times) / (performance.now() - start) / 1e6);
          }
          return best.toFixed(1);
        });
        for (const { span } of [a, b, out]) backend.release(span.buffer);
        console.log(`  ${String(n).padStart(4)}: ${speeds.join(", B transposed ")} GFLOP/s`);
      }
      await backend.dispose();
    } catch (error) {
      console.log(`${matmul}: ${error instanceof Error ? error.message : error}`);
    }
  }
}

if (import.meta.main) await printMatmulRates(Number(process.argv[2] ?? 1));

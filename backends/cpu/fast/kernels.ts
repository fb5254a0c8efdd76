/**
 * The CPU's kernels with the hot ones in WebAssembly: the plain ones, some replaced.
 *
 * @module
 */
import type { GemmEngine } from "../gemm/gemm.ts";
import { attention, attentionBackward } from "../kernels/attention.ts";
import type { Heap } from "../kernels/heap.ts";
import type { CpuKernels } from "../kernels/plain.ts";
import { plainScores } from "../kernels/scores.ts";
import type { WasmKernels } from "../wasm/load.ts";
import { fastElementwise } from "./elementwise.ts";
import { fastGated } from "./gated.ts";
import { fastRmsNorm } from "./rms-norm.ts";
import { fastRotary } from "./rotary.ts";
import { fastRows } from "./rows.ts";
import { fastScores } from "./scores.ts";

/** All kernels; `plain` does what the module does not. */
export function fastKernels(
  plain: CpuKernels,
  heap: Heap,
  engine: GemmEngine,
  wasm: WasmKernels,
): CpuKernels {
  const scores = fastScores(plainScores(heap), wasm);
  return {
    ...plain,
    ...fastElementwise(plain, heap, wasm),
    ...fastRows(plain, heap, wasm),
    ...fastGated(plain, heap, wasm),
    ...fastRmsNorm(plain, heap, wasm),
    ...fastRotary(plain, heap, wasm),
    attention: (args) => attention(heap, engine, scores, args),
    attentionBackward: (args) => attentionBackward(heap, engine, scores, args),
  };
}

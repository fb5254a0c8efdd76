/**
 * The CPU's kernels with the hot ones in WebAssembly: the plain ones, some replaced.
 *
 * @module
 */
import type { Kernels } from "../../../core/contracts/kernels.ts";
import type { GemmEngine } from "../gemm/gemm.ts";
import { attention, attentionBackward } from "../kernels/attention.ts";
import type { Heap } from "../kernels/heap.ts";
import { plainScores } from "../kernels/scores.ts";
import type { WasmKernels } from "../wasm/load.ts";
import { fastElementwise } from "./elementwise.ts";
import { fastRows } from "./rows.ts";
import { fastScores } from "./scores.ts";

/** All kernels; `plain` does what the module does not. */
export function fastKernels(plain: Kernels, heap: Heap, engine: GemmEngine, wasm: WasmKernels): Kernels {
  const scores = fastScores(plainScores(heap), wasm);
  return {
    ...plain,
    ...fastElementwise(plain, heap, wasm),
    ...fastRows(plain, heap, wasm),
    attention: (args) => attention(heap, engine, scores, args),
    attentionBackward: (args) => attentionBackward(heap, engine, scores, args),
  };
}

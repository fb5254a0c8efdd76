/**
 * Rotary positions in WebAssembly SIMD for float32; whatever else comes goes to the plain twin.
 *
 * @module
 */
import type { Kernels } from "../../../core/contracts/kernels.ts";
import { type Heap, requireLength } from "../kernels/heap.ts";
import { requireRotary } from "../kernels/rotary.ts";
import type { WasmKernels } from "../wasm/load.ts";
import { isFloat32 } from "./elementwise.ts";

/** The fast rotation. */
export function fastRotary(plain: Kernels, heap: Heap, wasm: WasmKernels): Pick<Kernels, "rotary"> {
  return {
    rotary(args) {
      const { x, out, cos, sin, rows, length, heads, headDim, inverse } = args;
      if (!isFloat32(x, out, cos, sin)) return plain.rotary(args);
      requireRotary(args);
      const half = headDim / 2;
      for (const span of [x, out]) requireLength("rotary", span, rows * heads * headDim);
      for (const span of [cos, sin]) requireLength("rotary angles", span, length * half);
      const [px, po, pc, ps] = [heap.address(x), heap.address(out), heap.address(cos), heap.address(sin)];
      wasm.rotary(px, po, pc, ps, rows, length, heads, half, inverse ? -1 : 1);
    },
  };
}

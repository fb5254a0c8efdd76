/**
 * Root-mean-square normalisation in WebAssembly SIMD for float32; whatever else comes goes to the plain twin.
 *
 * @module
 */
import type { Kernels } from "../../../core/contracts/kernels.ts";
import { type Heap, requireLength } from "../kernels/heap.ts";
import type { WasmKernels } from "../wasm/load.ts";
import { isFloat32 } from "./elementwise.ts";

/** The fast normalisation and its gradients. */
export function fastRmsNorm(
  plain: Kernels,
  heap: Heap,
  wasm: WasmKernels,
): Pick<Kernels, "rmsNorm" | "rmsNormBackward"> {
  return {
    rmsNorm(args) {
      const { x, weight, out, rstd, rows, columns, eps } = args;
      if (!isFloat32(x, weight, out, rstd)) return plain.rmsNorm(args);
      for (const span of [x, out]) requireLength("rmsNorm", span, rows * columns);
      requireLength("rmsNorm", weight, columns);
      requireLength("rmsNorm", rstd, rows);
      const [px, pw, po] = [heap.address(x), heap.address(weight), heap.address(out)];
      wasm.rmsNorm(px, pw, po, heap.address(rstd), rows, columns, eps);
    },
    rmsNormBackward(args) {
      const { x, weight, rstd, gradient, dx, dWeight, rows, columns } = args;
      const kernel = "rmsNorm backward";
      if (!isFloat32(x, weight, rstd, gradient, dx ?? x, dWeight ?? x)) return plain.rmsNormBackward(args);
      for (const span of [x, gradient, dx ?? x]) requireLength(kernel, span, rows * columns);
      for (const span of [weight, dWeight ?? weight]) requireLength(kernel, span, columns);
      requireLength(kernel, rstd, rows);
      const padded = Math.ceil(columns / 4) * 4;
      const sums = heap.scratch(8 * padded);
      const first = sums / 8;
      heap.float64().fill(0, first, first + padded);
      const [px, pw, pr] = [heap.address(x), heap.address(weight), heap.address(rstd)];
      const pd = dx === undefined ? 0 : heap.address(dx);
      wasm.rmsNormBackward(px, pw, pr, heap.address(gradient), pd, sums, rows, columns);
      if (dWeight === undefined) return;
      heap.float32().set(heap.float64().subarray(first, first + columns), heap.address(dWeight) / 4);
    },
  };
}

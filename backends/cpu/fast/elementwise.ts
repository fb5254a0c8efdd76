/**
 * Elementwise kernels in WebAssembly SIMD for float32; whatever else comes goes to the plain twin.
 *
 * @module
 */

import type { Span } from "../../../core/contracts/backend.ts";
import type { BinaryOp, UnaryOp } from "../../../core/contracts/kernels.ts";
import { numelOf } from "../../../core/tensor/shape.ts";
import { type Heap, requireLength, requireSame } from "../kernels/heap.ts";
import type { CpuKernels } from "../kernels/plain.ts";
import { collapse, forEachRow, requireWithin } from "../kernels/strides.ts";
import type { WasmKernels } from "../wasm/load.ts";

/** Numbers that the module gives to the functions it has: see wasm/assembly/functions.ts. */
const UNARY: Readonly<Partial<Record<UnaryOp, number>>> = {
  exp: 0,
  tanh: 1,
  sigmoid: 2,
  silu: 3,
  geluTanh: 4,
  relu: 5,
};
const BINARY: Readonly<Partial<Record<BinaryOp, number>>> = { add: 0, sub: 1, mul: 2, div: 3 };

/** Shorter rows are not worth a call each. */
const SHORT_ROW = 16;

type ElementwiseKernels = Pick<
  CpuKernels,
  "unary" | "unaryBackward" | "affine" | "binary" | "copy" | "reduce" | "normPower" | "dropout"
>;

/** Whether every span is float32. */
export function isFloat32(...spans: readonly Span[]): boolean {
  return spans.every((span) => span.dtype === "float32");
}

/** The fast elementwise kernels and sums. */
export function fastElementwise(plain: CpuKernels, heap: Heap, wasm: WasmKernels): ElementwiseKernels {
  return {
    unary(op, x, out) {
      const code = UNARY[op];
      if (code === undefined || !isFloat32(x, out)) return plain.unary(op, x, out);
      requireSame(op, [x, out]);
      wasm.unary(code, heap.address(x), heap.address(out), out.length);
    },
    unaryBackward(op, x, y, gradient, out) {
      const code = UNARY[op];
      if (code === undefined || !isFloat32(x, y, gradient, out))
        return plain.unaryBackward(op, x, y, gradient, out);
      requireSame(`${op} backward`, [x, y, gradient, out]);
      const [px, py, pg, po] = [heap.address(x), heap.address(y), heap.address(gradient), heap.address(out)];
      wasm.unaryBackward(code, px, py, pg, po, out.length);
    },
    affine(x, out, scale, shift) {
      if (!isFloat32(x, out)) return plain.affine(x, out, scale, shift);
      requireSame("affine", [x, out]);
      wasm.affine(heap.address(x), heap.address(out), out.length, scale, shift);
    },
    binary(op, a, b, out, sizes) {
      const code = BINARY[op];
      const loop = collapse(sizes, [a.strides, b.strides]);
      const [stepA, stepB] = loop.strides as [number, number];
      const steps = stepA <= 1 && stepB <= 1 && stepA + stepB > 0;
      const long = loop.length >= SHORT_ROW || loop.outer.length === 0;
      if (code === undefined || !steps || !long || !isFloat32(a.span, b.span, out)) {
        return plain.binary(op, a, b, out, sizes);
      }
      requireLength(op, out, numelOf(sizes));
      requireWithin(op, a.span, 0, sizes, a.strides);
      requireWithin(op, b.span, 0, sizes, b.strides);
      const [pa, pb, po] = [heap.address(a.span), heap.address(b.span), heap.address(out)];
      let o = 0;
      forEachRow(loop, ([i, j]) => {
        wasm.binary(code, pa + 4 * i!, stepA, pb + 4 * j!, stepB, po + 4 * o, loop.length);
        o += loop.length;
      });
    },
    copy(source, target, boxes, accumulate = false) {
      if (!accumulate || !isFloat32(source, target)) return plain.copy(source, target, boxes, accumulate);
      const [from, to] = [heap.address(source), heap.address(target)];
      for (const box of boxes) {
        const loop = collapse(box.sizes, [box.sourceStrides, box.targetStrides]);
        if (loop.length < SHORT_ROW || loop.strides[0] !== 1 || loop.strides[1] !== 1) {
          plain.copy(source, target, [box], true);
          continue;
        }
        requireWithin("copy source", source, box.sourceOffset, box.sizes, box.sourceStrides);
        requireWithin("copy target", target, box.targetOffset, box.sizes, box.targetStrides);
        forEachRow(loop, ([s, t]) => {
          const at = to + 4 * (box.targetOffset + t!);
          wasm.binary(BINARY.add!, at, 1, from + 4 * (box.sourceOffset + s!), 1, at, loop.length);
        });
      }
    },
    reduce(op, x, out, outer, extent, inner, accumulate = false) {
      if (op !== "sum" || !isFloat32(x, out))
        return plain.reduce(op, x, out, outer, extent, inner, accumulate);
      requireLength("reduce sum", x, outer * extent * inner);
      requireLength("reduce sum", out, outer * inner);
      const [from, to] = [heap.address(x), heap.address(out)];
      for (let o = 0; o < outer; o++) {
        wasm.sumColumns(from + 4 * o * extent * inner, to + 4 * o * inner, extent, inner, +accumulate);
      }
    },
    dropout(x, out, p, key, first = 0) {
      // word >= p * 2^32, in whole numbers; p of 1 and what is no probability go to the twin.
      const threshold = Math.ceil(p * 2 ** 32);
      if (!(threshold >= 0 && threshold < 2 ** 32) || !isFloat32(x, out))
        return plain.dropout(x, out, p, key, first);
      requireSame("dropout", [x, out]);
      const scale = 1 / (1 - p);
      wasm.dropout(
        heap.address(x),
        heap.address(out),
        out.length,
        first / 4,
        threshold,
        scale,
        key.low,
        key.high,
      );
    },
    normPower(x, out, p) {
      if (p !== 2 || !isFloat32(x, out)) return plain.normPower(x, out, p);
      requireLength("normPower", out, 1);
      heap.float32()[heap.address(out) / 4] = wasm.sumSquares(heap.address(x), x.length);
    },
  };
}

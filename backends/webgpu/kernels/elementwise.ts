/**
 * Elementwise kernels.
 *
 * @module
 */

import type { Span } from "../../../core/contracts/backend.ts";
import { DTYPES } from "../../../core/contracts/dtype.ts";
import type { BinaryOp, StridedOperand, UnaryOp } from "../../../core/contracts/kernels.ts";
import { numelOf } from "../../../core/tensor/shape.ts";
import type { Gpu } from "../dispatch.ts";
import { commonType, floatType, part, requireLength, requireSame } from "../spans.ts";
import { inSlabs, merge, requireWithin, type Space } from "../strides.ts";
import { affineSource, binarySource, unaryBackwardSource, unarySource } from "../wgsl/elementwise.ts";
import { STRIDED_WORKGROUP, stridedBinarySource, whereSource } from "../wgsl/strided.ts";
import { runMap } from "./map.ts";

/** See `Kernels.unary`. */
export function unary(gpu: Gpu, op: UnaryOp, x: Span, out: Span): void {
  requireSame(op, [x, out]);
  const type = floatType(gpu, op, x);
  runMap(gpu, (wide) => unarySource(op, type, wide), [x, out]);
}

/** See `Kernels.unaryBackward`. */
export function unaryBackward(gpu: Gpu, op: UnaryOp, x: Span, y: Span, gradient: Span, out: Span): void {
  const kernel = `${op} backward`;
  requireSame(kernel, [x, y, gradient, out]);
  const type = floatType(gpu, kernel, x);
  runMap(gpu, (wide) => unaryBackwardSource(op, type, wide), [x, y, gradient, out]);
}

/** See `Kernels.affine`. */
export function affine(gpu: Gpu, x: Span, out: Span, scale: number, shift: number): void {
  requireSame("affine", [x, out]);
  const type = floatType(gpu, "affine", x);
  runMap(gpu, (wide) => affineSource(type, wide), [x, out], { scale, shift });
}

/** See `Kernels.binary`. */
export function binary(
  gpu: Gpu,
  op: BinaryOp,
  a: StridedOperand,
  b: StridedOperand,
  out: Span,
  sizes: readonly number[],
): void {
  const type = commonType(gpu, op, [out, a.span, b.span]);
  const n = numelOf(sizes);
  requireLength(op, out, n);
  for (const { span, strides } of [a, b]) requireWithin(op, span, 0, sizes, strides);
  if (n === 0) return;
  const space = merge(sizes, [a.strides, b.strides]);
  if (isContiguous(space)) {
    const spans = [a.span, b.span, out].map((span) => part(span, 0, n));
    runMap(gpu, (wide) => binarySource(op, type, wide), spans);
    return;
  }
  const widest = DTYPES[out.dtype].bytes;
  inSlabs(gpu, space, [a.span, b.span], widest, (slab, [left, right], start, count) => {
    const source = stridedBinarySource(op, type, slab.sizes.length);
    const params = { n: count, ...stridedValues(["a", "b"], slab) };
    const spans = [left!, right!, part(out, start, count)];
    gpu.dispatch(source, spans, params, Math.ceil(count / STRIDED_WORKGROUP));
  });
}

/** See `Kernels.where`. The condition may have any dtype. */
export function where(
  gpu: Gpu,
  condition: StridedOperand,
  a: StridedOperand,
  b: StridedOperand,
  out: Span,
  sizes: readonly number[],
): void {
  const type = commonType(gpu, "where", [out, a.span, b.span]);
  const n = numelOf(sizes);
  requireLength("where", out, n);
  for (const { span, strides } of [condition, a, b]) requireWithin("where", span, 0, sizes, strides);
  if (n === 0) return;
  const { bytes, floating } = DTYPES[condition.span.dtype];
  const space = merge(sizes, [condition.strides, a.strides, b.strides]);
  const widest = Math.max(bytes, DTYPES[out.dtype].bytes);
  inSlabs(gpu, space, [condition.span, a.span, b.span], widest, (slab, [test, left, right], start, count) => {
    const source = whereSource(bytes, floating, type, slab.sizes.length);
    const skip = ((test!.offset * bytes) % 4) / Math.min(4, bytes);
    const params = { n: count, skip, ...stridedValues(["condition", "a", "b"], slab) };
    const spans = [test!, left!, right!, part(out, start, count)];
    gpu.dispatch(source, spans, params, Math.ceil(count / STRIDED_WORKGROUP));
  });
}

function isContiguous({ sizes, strides }: Space): boolean {
  return sizes.length === 1 && strides.every(([stride]) => stride === 1);
}

/** Values of `stridedParams`. */
function stridedValues(operands: readonly string[], { sizes, strides }: Space): Record<string, number> {
  const values: Record<string, number> = {};
  for (let d = 1; d < sizes.length; d++) values[`size${d}`] = sizes[d]!;
  for (const [i, name] of operands.entries()) {
    for (let d = 0; d < sizes.length; d++) values[`${name}${d}`] = strides[i]![d]!;
  }
  return values;
}

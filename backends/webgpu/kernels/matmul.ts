/**
 * Matrix products: checks, the choice of a kernel, splits of deep products, and parts of products whose operands are
 * larger than a binding.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import { DTYPES } from "../../../core/contracts/dtype.ts";
import { DeviceError, ShapeError } from "../../../core/contracts/errors.ts";
import type { MatmulArgs, MatrixOperand } from "../../../core/contracts/kernels.ts";
import type { Gpu } from "../dispatch.ts";
import { commonType, floatType, part, requireLength } from "../spans.ts";
import { type Product, product } from "./matmul-product.ts";

/** See `Kernels.matmul`. Operands are of one float type; the result and the bias may be of another. */
export function matmul(gpu: Gpu, args: MatmulArgs): void {
  check(gpu, args);
  if (args.batch === 0 || args.m === 0 || args.n === 0) return;
  inParts(gpu, mergedBatch(args));
}

/** Matrices that lie behind each other and meet one common right operand are one tall matrix. */
function mergedBatch(args: MatmulArgs): MatmulArgs {
  const { a, b, out, batch, m } = args;
  const tall =
    !a.transposed &&
    a.batchStride === m * a.rowStride &&
    out.batchStride === m * out.rowStride &&
    b.batchStride === 0;
  return tall && batch > 1 ? { ...args, batch: 1, m: batch * m } : args;
}

/** Halves a product until each of its operands fits a binding. */
function inParts(gpu: Gpu, args: MatmulArgs): void {
  const { a, b, out, batch, m, n, k } = args;
  const spans = { a: reach(a, batch, m, k), b: reach(b, batch, k, n), out: reach(out, batch, m, n) };
  const large = (span: Span): boolean =>
    span.length * DTYPES[span.dtype].bytes > gpu.limits.maxBindingBytes - gpu.limits.bindingAlignment;
  const tooLarge = [spans.a, spans.b, spans.out].some(large);
  if (!tooLarge) {
    const whole: Product = {
      ...args,
      a: { ...a, span: spans.a },
      b: { ...b, span: spans.b },
      out: { ...out, span: spans.out },
      ...preactivationFrom(args, 0, spans.out.length),
    };
    product(gpu, whole);
  } else if (batch > 1) {
    halves(batch, (begin, count) =>
      inParts(gpu, {
        ...args,
        batch: count,
        a: skip(a, begin * a.batchStride),
        b: skip(b, begin * b.batchStride),
        out: skip(out, begin * out.batchStride),
        ...preactivationFrom(args, begin * out.batchStride),
      }),
    );
  } else if (m > 1 && (large(spans.out) || (large(spans.a) && !a.transposed))) {
    halves(m, (begin, count) =>
      inParts(gpu, {
        ...args,
        m: count,
        a: skip(a, begin * (a.transposed ? 1 : a.rowStride)),
        out: skip(out, begin * out.rowStride),
        ...preactivationFrom(args, begin * out.rowStride),
      }),
    );
  } else if (n > 1 && large(spans.b) && b.transposed) {
    halves(n, (begin, count) =>
      inParts(gpu, {
        ...args,
        n: count,
        b: skip(b, begin * b.rowStride),
        out: skip(out, begin),
        ...biasFrom(args, begin, count),
        ...preactivationFrom(args, begin),
      }),
    );
  } else if (k > 1) {
    halves(k, (begin, count) => {
      const deep = {
        ...args,
        k: count,
        a: skip(a, begin * (a.transposed ? a.rowStride : 1)),
        b: skip(b, begin * (b.transposed ? 1 : b.rowStride)),
      };
      // The last part finishes the sum: it has the activation, as the first has the bias.
      const { bias, activation, preactivation, ...rest } = deep;
      if (begin === 0) return inParts(gpu, { ...rest, ...(bias && { bias }) });
      const finish = { ...(activation && { activation }), ...(preactivation && { preactivation }) };
      inParts(gpu, { ...rest, ...finish, accumulate: true });
    });
  } else {
    throw new DeviceError(
      `webgpu matmul: one row of an operand is larger than a binding, allowed: ${gpu.limits.maxBindingBytes} bytes`,
    );
  }
}

function halves(extent: number, work: (begin: number, count: number) => void): void {
  // A multiple of eight keeps vectors aligned in the second half.
  const half = extent > 16 ? Math.ceil(extent / 16) * 8 : Math.ceil(extent / 2);
  work(0, half);
  work(half, extent - half);
}

function skip(operand: MatrixOperand, elements: number): MatrixOperand {
  const { span } = operand;
  return { ...operand, span: part(span, elements, span.length - elements) };
}

function biasFrom({ bias }: MatmulArgs, begin: number, count: number): { bias?: Span } {
  return bias === undefined ? {} : { bias: part(bias, begin, count) };
}

/** The preactivation that belongs to a result from its element `begin` on. */
function preactivationFrom(
  { preactivation }: MatmulArgs,
  begin: number,
  length?: number,
): { preactivation?: Span } {
  if (preactivation === undefined) return {};
  return { preactivation: part(preactivation, begin, length ?? preactivation.length - begin) };
}

/** The part of an operand's span that the product touches. */
function reach(operand: MatrixOperand, batch: number, rows: number, columns: number): Span {
  const [r, c] = operand.transposed ? [columns, rows] : [rows, columns];
  if (r === 0 || c === 0) return part(operand.span, 0, 0);
  return part(operand.span, 0, (batch - 1) * operand.batchStride + (r - 1) * operand.rowStride + c);
}

function check(gpu: Gpu, args: MatmulArgs): void {
  const { a, b, out, batch, m, n, k, bias, activation, preactivation } = args;
  commonType(gpu, "matmul", [a.span, b.span]);
  floatType(gpu, "matmul", out.span);
  if (out.transposed) throw new ShapeError("webgpu matmul: the result is transposed, allowed: operands only");
  if (bias !== undefined) {
    floatType(gpu, "matmul bias", bias);
    requireLength("matmul bias", bias, n);
  }
  requireMatrix("matmul a", a, batch, m, k);
  requireMatrix("matmul b", b, batch, k, n);
  requireMatrix("matmul out", out, batch, m, n);
  if (activation !== undefined && args.accumulate) {
    throw new ShapeError(`webgpu matmul: ${activation} was given with accumulate, allowed: one of them`);
  }
  if (preactivation === undefined) return;
  commonType(gpu, "matmul", [out.span, preactivation]);
  requireMatrix("matmul preactivation", { ...out, span: preactivation }, batch, m, n);
}

function requireMatrix(
  what: string,
  operand: MatrixOperand,
  batch: number,
  rows: number,
  columns: number,
): void {
  const { span, rowStride, batchStride } = operand;
  const [r, c] = operand.transposed ? [columns, rows] : [rows, columns];
  if (batch === 0 || r === 0 || c === 0) return;
  if (!(rowStride >= 0 && batchStride >= 0) || (r > 1 && rowStride < c)) {
    throw new ShapeError(
      `webgpu ${what}: rows of ${c} elements lie ${rowStride} apart, matrices ${batchStride}, allowed: rows at least their length apart`,
    );
  }
  requireLength(what, span, reach(operand, batch, rows, columns).length);
}

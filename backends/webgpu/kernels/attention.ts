/**
 * Attention, forward and backward: checks, the choice of kernels, and batches in parts where operands are larger than a
 * binding. No matrix of all scores exists anywhere.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import { DTYPES } from "../../../core/contracts/dtype.ts";
import { DeviceError, ShapeError } from "../../../core/contracts/errors.ts";
import type { AttentionShape, HeadsOperand, Kernels } from "../../../core/contracts/kernels.ts";
import type { Gpu } from "../dispatch.ts";
import { commonType, floatType, part, requireLength } from "../spans.ts";
import { type AttentionKernels, attentionKernels } from "./attention-kernels.ts";

type Forward = Parameters<Kernels["attention"]>[0];
type Backward = Parameters<Kernels["attentionBackward"]>[0];
type Operands = Readonly<Record<string, HeadsOperand>>;

/** See `Kernels.attention`. Operands are of one float type; `logSumExp` may be of another. */
export function attention(gpu: Gpu, args: Forward): void {
  const { shape, logSumExp, query, key, value, out } = args;
  check(gpu, "attention", shape, logSumExp, { query, out }, { key, value });
  if (rowsOf(shape, "query") === 0) return;
  inBatches(gpu, shape, logSumExp, { query, key, value, out }, (part, lse, operands) => {
    const kernels = kernelsFor(gpu, part, lse, operands);
    run(gpu, kernels, "forward", part, operands, { lse });
  });
}

/** See `Kernels.attentionBackward`. */
export function attentionBackward(gpu: Gpu, args: Backward): void {
  const { shape, logSumExp, query, key, value, out, gradient, dQuery, dKey, dValue } = args;
  const ofQuery = { query, out, gradient, dQuery };
  const ofKey = { key, value, dKey, dValue };
  check(gpu, "attention backward", shape, logSumExp, ofQuery, ofKey);
  if (rowsOf(shape, "query") === 0 && rowsOf(shape, "key") === 0) return;
  inBatches(gpu, shape, logSumExp, { ...ofQuery, ...ofKey }, (part, lse, operands) => {
    const kernels = kernelsFor(gpu, part, lse, operands);
    gpu.withScratch("float32", Math.max(1, rowsOf(part, "query")), (delta) => {
      run(gpu, kernels, "delta", part, operands, { delta });
      run(gpu, kernels, "query", part, operands, { lse, delta });
      run(gpu, kernels, "key", part, operands, { lse, delta });
    });
  });
}

function kernelsFor(gpu: Gpu, shape: AttentionShape, lse: Span, operands: Operands): AttentionKernels {
  const all = Object.values(operands);
  return attentionKernels(gpu, {
    element: floatType(gpu, "attention", all[0]!.span),
    stats: floatType(gpu, "attention", lse),
    headDim: shape.headDim,
    causal: shape.causal,
    aligned: (word) =>
      shape.headDim % word === 0 &&
      all.every(
        ({ span, rowStride, batchStride }) =>
          span.offset % word === 0 &&
          rowStride % word === 0 &&
          (shape.batch === 1 || batchStride % word === 0),
      ),
  });
}

/** Dispatches one kernel: which operands and strides it takes, it says itself. */
function run(
  gpu: Gpu,
  kernels: AttentionKernels,
  which: "forward" | "delta" | "query" | "key",
  shape: AttentionShape,
  operands: Operands,
  statistics: Readonly<Record<string, Span>>,
): void {
  const { source, rows } = kernels[which];
  const { batch, heads, keyHeads, queryLength, keyLength, headDim, scale, causal } = shape;
  const params: Record<string, number> = {
    batches: batch,
    heads,
    keyHeads,
    queryLength,
    keyLength,
    headDim,
    scale,
  };
  params.causal = Number(causal);
  for (const [name, { rowStride, batchStride }] of Object.entries(operands)) {
    params[`${name}Row`] = rowStride;
    params[`${name}Batch`] = batchStride;
  }
  const spans = source.operands.map(({ name }) => statistics[name] ?? operands[name]!.span);
  const blocks =
    which === "key" ? keyHeads * Math.ceil(keyLength / rows) : heads * Math.ceil(queryLength / rows);
  gpu.dispatch(source, spans, params, headDim === 0 ? 0 : batch * blocks);
}

/** Halves a batch until each operand of a part fits a binding. */
function inBatches(
  gpu: Gpu,
  shape: AttentionShape,
  logSumExp: Span,
  operands: Operands,
  work: (shape: AttentionShape, logSumExp: Span, operands: Operands) => void,
): void {
  const room = gpu.limits.maxBindingBytes - gpu.limits.bindingAlignment;
  const reached = Object.fromEntries(
    Object.entries(operands).map(([name, operand]) => {
      const ofKey = name.endsWith("ey") || name.endsWith("alue");
      return [name, { ...operand, span: part(operand.span, 0, reach(operand, shape, ofKey)) }] as const;
    }),
  );
  const fits = Object.values(reached).every(({ span }) => span.length * DTYPES[span.dtype].bytes <= room);
  if (fits) {
    work(shape, logSumExp, reached);
    return;
  }
  if (shape.batch <= 1) {
    throw new DeviceError(
      `webgpu attention: one sequence is larger than a binding, allowed: ${room} bytes an operand`,
    );
  }
  const half = Math.ceil(shape.batch / 2);
  for (const [begin, batch] of [
    [0, half],
    [half, shape.batch - half],
  ] as const) {
    const rows = shape.heads * shape.queryLength;
    const moved = Object.entries(operands).map(([name, operand]) => {
      const at = begin * operand.batchStride;
      return [name, { ...operand, span: part(operand.span, at, operand.span.length - at) }] as const;
    });
    inBatches(
      gpu,
      { ...shape, batch },
      part(logSumExp, begin * rows, batch * rows),
      Object.fromEntries(moved),
      work,
    );
  }
}

/** Elements from an operand's first to its last. */
function reach({ rowStride, batchStride }: HeadsOperand, shape: AttentionShape, ofKey: boolean): number {
  const { batch, headDim } = shape;
  const [rows, width] = ofKey
    ? [shape.keyLength, shape.keyHeads * headDim]
    : [shape.queryLength, shape.heads * headDim];
  return batch * rows * width === 0 ? 0 : (batch - 1) * batchStride + (rows - 1) * rowStride + width;
}

function rowsOf(shape: AttentionShape, owner: "query" | "key"): number {
  const rows = owner === "query" ? shape.heads * shape.queryLength : shape.keyHeads * shape.keyLength;
  return shape.headDim === 0 ? 0 : shape.batch * rows;
}

function check(
  gpu: Gpu,
  kernel: string,
  shape: AttentionShape,
  logSumExp: Span,
  ofQuery: Operands,
  ofKey: Operands,
): void {
  const { batch, heads, keyHeads, queryLength } = shape;
  if (heads > 0 && (keyHeads < 1 || heads % keyHeads !== 0)) {
    throw new ShapeError(`webgpu ${kernel}: ${heads} heads over ${keyHeads} key heads, allowed: a multiple`);
  }
  const operands = [...Object.entries(ofQuery), ...Object.entries(ofKey)];
  commonType(
    gpu,
    kernel,
    operands.map(([, { span }]) => span),
  );
  floatType(gpu, `${kernel} logSumExp`, logSumExp);
  requireLength(`${kernel} logSumExp`, logSumExp, batch * heads * queryLength);
  for (const [name, operand] of operands) {
    const isKey = name in ofKey;
    const width = (isKey ? keyHeads : heads) * shape.headDim;
    const rows = isKey ? shape.keyLength : queryLength;
    if (!(operand.rowStride >= 0 && operand.batchStride >= 0) || (rows > 1 && operand.rowStride < width)) {
      throw new ShapeError(
        `webgpu ${kernel} ${name}: rows of ${width} elements lie ${operand.rowStride} apart, allowed: at least their length`,
      );
    }
    requireLength(`${kernel} ${name}`, operand.span, reach(operand, shape, isKey));
  }
}

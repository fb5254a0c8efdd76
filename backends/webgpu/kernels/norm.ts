/**
 * Layer normalisation and its gradients.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { Kernels } from "../../../core/contracts/kernels.ts";
import type { Gpu } from "../dispatch.ts";
import { commonType, congruent, type FloatType, leadOf, part, requireLength } from "../spans.ts";
import {
  layerNormInputSource,
  layerNormScaleSource,
  layerNormSource,
  SCALE_WORKGROUP,
  type ScaleAccess,
} from "../wgsl/norm.ts";
import { reduceColumns } from "./reduce.ts";
import { rowsPerBinding, runRows } from "./rows.ts";

/** Rows whose gradients of weight and bias one workgroup adds up. */
const SCALE_ROWS = 16;
/** Partial sums of a column at most: blocks of rows are taller when there are more rows. */
const MAX_BLOCKS = 1024;

/** See `Kernels.layerNorm`. Mean and rstd may be wider than the rows. */
export function layerNorm(gpu: Gpu, args: Parameters<Kernels["layerNorm"]>[0]): void {
  const { x, weight, bias, out, mean, rstd, rows, columns, eps } = args;
  const scales = bias === undefined ? [weight] : [weight, bias];
  const type = commonType(gpu, "layerNorm", [x, out, ...scales]);
  const statType = commonType(gpu, "layerNorm", [mean, rstd]);
  for (const span of [x, out]) requireLength("layerNorm", span, rows * columns);
  for (const span of scales) requireLength("layerNorm", span, columns);
  for (const span of [mean, rstd]) requireLength("layerNorm", span, rows);
  const access = scaleAccess([x, out], scales, columns);
  runRows(
    gpu,
    ({ wide, workgroup, kept, subgroups }) =>
      layerNormSource(type, statType, wide, access, bias !== undefined, workgroup, kept, subgroups),
    {
      matrices: [x, out].map((span) => part(span, 0, rows * columns)),
      others: [
        ...scales.map((span) => ({ span, perRow: 0 })),
        { span: mean, perRow: 1 },
        { span: rstd, perRow: 1 },
      ],
    },
    rows,
    columns,
    { eps },
  );
}

/** See `Kernels.layerNormBackward`. */
export function layerNormBackward(gpu: Gpu, args: Parameters<Kernels["layerNormBackward"]>[0]): void {
  const { x, weight, mean, rstd, gradient, dx, rows, columns } = args;
  const kernel = "layerNorm backward";
  const type = commonType(gpu, kernel, [x, weight, gradient, ...(dx === undefined ? [] : [dx])]);
  const statType = commonType(gpu, kernel, [mean, rstd]);
  for (const span of [x, gradient]) requireLength(kernel, span, rows * columns);
  for (const span of [mean, rstd]) requireLength(kernel, span, rows);
  requireLength(kernel, weight, columns);
  if (dx !== undefined) {
    requireLength(kernel, dx, rows * columns);
    const access = scaleAccess([x, gradient, dx], [weight], columns);
    runRows(
      gpu,
      ({ wide, workgroup, kept, subgroups }) =>
        layerNormInputSource(type, statType, wide, access, workgroup, kept, subgroups),
      {
        matrices: [x, gradient, dx].map((span) => part(span, 0, rows * columns)),
        others: [
          { span: weight, perRow: 0 },
          { span: mean, perRow: 1 },
          { span: rstd, perRow: 1 },
        ],
      },
      rows,
      columns,
    );
  }
  if (args.dWeight !== undefined || args.dBias !== undefined) scaleGradients(gpu, args, type, statType);
}

/** Vectors serve when every row, and weight and bias, begin at one. */
export function scaleAccess(
  matrices: readonly Span[],
  scales: readonly Span[],
  columns: number,
): ScaleAccess {
  const aligned =
    columns % 4 === 0 && congruent(matrices) && [...matrices, ...scales].every((s) => leadOf(s) === 0);
  return aligned ? "vector" : "scalar";
}

/** How gradients of weight and bias are added up: blocks of `height` rows, `most` rows a dispatch, columns one by one or by four. */
export function scaleBlocks(
  gpu: Gpu,
  x: Span,
  gradient: Span,
  rows: number,
  columns: number,
): {
  readonly height: number;
  readonly most: number;
  readonly blocks: number;
  readonly wide: boolean;
  readonly vectors: number;
} {
  const height = Math.max(SCALE_ROWS, Math.ceil(rows / MAX_BLOCKS));
  // Blocks of rows that fit a binding, in whole heights.
  const most = Math.max(1, Math.floor(rowsPerBinding(gpu, [x, gradient], columns) / height)) * height;
  const blocks = Math.ceil(rows / height);
  const wide = columns % 4 === 0 && leadOf(x) === 0 && leadOf(gradient) === 0;
  return { height, most, blocks, wide, vectors: wide ? columns / 4 : columns };
}

/** Partial sums over blocks of rows, then their sums. */
function scaleGradients(
  gpu: Gpu,
  args: Parameters<Kernels["layerNormBackward"]>[0],
  type: FloatType,
  statType: FloatType,
): void {
  const { x, gradient, mean, rstd, rows, columns } = args;
  const outputs = [args.dWeight, args.dBias];
  for (const span of outputs) if (span !== undefined) requireLength("layerNorm backward", span, columns);
  const { height, most, blocks, wide, vectors } = scaleBlocks(gpu, x, gradient, rows, columns);
  const source = layerNormScaleSource(type, statType, wide);
  gpu.withScratch("float32", blocks * columns, (weights) =>
    gpu.withScratch("float32", blocks * columns, (biases) => {
      for (let first = 0; first < rows; first += most) {
        const count = Math.min(most, rows - first);
        const [begin, number] = [first / height, Math.ceil(count / height)];
        const spans = [
          part(x, first * columns, count * columns),
          part(gradient, first * columns, count * columns),
          part(mean, first, count),
          part(rstd, first, count),
          part(weights, begin * columns, number * columns),
          part(biases, begin * columns, number * columns),
        ];
        const grid = [Math.ceil(vectors / SCALE_WORKGROUP), number, 1] as const;
        gpu.dispatch(source, spans, { rows: count, vectors, height }, grid);
      }
      for (const [i, partial] of [weights, biases].entries()) {
        const out = outputs[i];
        if (out !== undefined)
          reduceColumns(gpu, "sum", partial, part(out, 0, columns), 1, blocks, columns, false);
      }
    }),
  );
}

/**
 * Layer and root-mean-square normalisation and their gradients. The second is the first without mean and bias.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { Kernels } from "../../../core/contracts/kernels.ts";
import type { Gpu } from "../dispatch.ts";
import { commonType, congruent, type FloatType, leadOf, part, requireLength } from "../spans.ts";
import {
  type Norm,
  normInputSource,
  normScaleSource,
  normSource,
  SCALE_WORKGROUP,
  type ScaleAccess,
} from "../wgsl/norm.ts";
import { reduceColumns } from "./reduce.ts";
import { rowsPerBinding, runRows } from "./rows.ts";

type LayerForward = Parameters<Kernels["layerNorm"]>[0];
type LayerBackward = Parameters<Kernels["layerNormBackward"]>[0];

/** Arguments of either norm, forward and backward. */
type Forward = Omit<LayerForward, "mean"> & Partial<Pick<LayerForward, "mean">>;
type Backward = Omit<LayerBackward, "mean"> & Partial<Pick<LayerBackward, "mean">>;

/** Names in messages. */
const KERNEL: Readonly<Record<Norm, string>> = { "layer-norm": "layerNorm", "rms-norm": "rmsNorm" };

/** Rows whose gradients of weight and bias one workgroup adds up. */
const SCALE_ROWS = 16;
/** Partial sums of a column at most: blocks of rows are taller when there are more rows. */
const MAX_BLOCKS = 1024;

/** See `Kernels.layerNorm`. Mean and rstd may be wider than the rows. */
export function layerNorm(gpu: Gpu, args: LayerForward): void {
  forward(gpu, "layer-norm", args);
}

/** See `Kernels.layerNormBackward`. */
export function layerNormBackward(gpu: Gpu, args: LayerBackward): void {
  backward(gpu, "layer-norm", args);
}

/** See `Kernels.rmsNorm`. `rstd` may be wider than the rows. */
export function rmsNorm(gpu: Gpu, args: Parameters<Kernels["rmsNorm"]>[0]): void {
  forward(gpu, "rms-norm", args);
}

/** See `Kernels.rmsNormBackward`. */
export function rmsNormBackward(gpu: Gpu, args: Parameters<Kernels["rmsNormBackward"]>[0]): void {
  backward(gpu, "rms-norm", args);
}

function forward(gpu: Gpu, norm: Norm, args: Forward): void {
  const { x, weight, bias, out, rows, columns, eps } = args;
  const kernel = KERNEL[norm];
  const scales = given(weight, bias);
  const stats = given(args.mean, args.rstd);
  const type = commonType(gpu, kernel, [x, out, ...scales]);
  const statType = commonType(gpu, kernel, stats);
  for (const span of [x, out]) requireLength(kernel, span, rows * columns);
  for (const span of scales) requireLength(kernel, span, columns);
  for (const span of stats) requireLength(kernel, span, rows);
  const access = scaleAccess([x, out], scales, columns);
  runRows(
    gpu,
    ({ wide, workgroup, kept, subgroups }) =>
      normSource(norm, type, statType, wide, access, bias !== undefined, workgroup, kept, subgroups),
    {
      matrices: [x, out].map((span) => part(span, 0, rows * columns)),
      others: [...scales.map((span) => ({ span, perRow: 0 })), ...stats.map((span) => ({ span, perRow: 1 }))],
    },
    rows,
    columns,
    { eps },
  );
}

function backward(gpu: Gpu, norm: Norm, args: Backward): void {
  const { x, weight, gradient, dx, rows, columns } = args;
  const kernel = `${KERNEL[norm]} backward`;
  const stats = given(args.mean, args.rstd);
  const type = commonType(gpu, kernel, given(x, weight, gradient, dx));
  const statType = commonType(gpu, kernel, stats);
  for (const span of given(x, gradient, dx)) requireLength(kernel, span, rows * columns);
  for (const span of stats) requireLength(kernel, span, rows);
  requireLength(kernel, weight, columns);
  // First, because the gradient of the input may take the place of the one that came.
  scaleGradients(gpu, norm, args, stats, type, statType);
  if (dx === undefined) return;
  const matrices = [x, gradient, dx];
  const access = scaleAccess(matrices, [weight], columns);
  runRows(
    gpu,
    ({ wide, workgroup, kept, subgroups }) =>
      normInputSource(norm, type, statType, wide, access, workgroup, kept, subgroups),
    {
      matrices: matrices.map((span) => part(span, 0, rows * columns)),
      others: [{ span: weight, perRow: 0 }, ...stats.map((span) => ({ span, perRow: 1 }))],
    },
    rows,
    columns,
  );
}

/** Those of the spans that there are. */
function given(...spans: readonly (Span | undefined)[]): Span[] {
  return spans.filter((span) => span !== undefined);
}

/** Vectors serve when every row, and weight and bias, begin at one. */
function scaleAccess(matrices: readonly Span[], scales: readonly Span[], columns: number): ScaleAccess {
  const aligned =
    columns % 4 === 0 && congruent(matrices) && [...matrices, ...scales].every((s) => leadOf(s) === 0);
  return aligned ? "vector" : "scalar";
}

/** Gradients of weight and bias, as wanted: partial sums over blocks of rows, then their sums. */
function scaleGradients(
  gpu: Gpu,
  norm: Norm,
  { x, gradient, dWeight, dBias, rows, columns }: Backward,
  stats: readonly Span[],
  type: FloatType,
  statType: FloatType,
): void {
  const wanted = given(dWeight, dBias);
  if (wanted.length === 0) return;
  for (const span of wanted) requireLength(`${KERNEL[norm]} backward`, span, columns);
  const height = Math.max(SCALE_ROWS, Math.ceil(rows / MAX_BLOCKS));
  // Rows that fit a binding, in whole blocks.
  const most = Math.max(1, Math.floor(rowsPerBinding(gpu, [x, gradient], columns) / height)) * height;
  const blocks = Math.ceil(rows / height);
  const wide = columns % 4 === 0 && leadOf(x) === 0 && leadOf(gradient) === 0;
  const vectors = wide ? columns / 4 : columns;
  const source = normScaleSource(norm, type, statType, wide);
  const sum = (...partials: readonly Span[]): void => {
    for (let first = 0; first < rows; first += most) {
      const count = Math.min(most, rows - first);
      const [begin, number] = [first / height, Math.ceil(count / height)];
      const spans = [
        ...[x, gradient].map((span) => part(span, first * columns, count * columns)),
        ...stats.map((span) => part(span, first, count)),
        ...partials.map((span) => part(span, begin * columns, number * columns)),
      ];
      const grid = [Math.ceil(vectors / SCALE_WORKGROUP), number, 1] as const;
      gpu.dispatch(source, spans, { rows: count, vectors, height }, grid);
    }
    for (const [i, out] of [dWeight, dBias].entries()) {
      if (out === undefined) continue;
      reduceColumns(gpu, "sum", partials[i]!, part(out, 0, columns), 1, blocks, columns, false);
    }
  };
  gpu.withScratch("float32", blocks * columns, (weights) => {
    if (norm === "rms-norm") return sum(weights);
    gpu.withScratch("float32", blocks * columns, (biases) => sum(weights, biases));
  });
}

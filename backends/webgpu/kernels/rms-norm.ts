/**
 * Root-mean-square normalisation and its gradients.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { Kernels } from "../../../core/contracts/kernels.ts";
import type { Gpu } from "../dispatch.ts";
import { commonType, type FloatType, floatType, part, requireLength } from "../spans.ts";
import { SCALE_WORKGROUP } from "../wgsl/norm.ts";
import { rmsNormInputSource, rmsNormScaleSource, rmsNormSource } from "../wgsl/rms-norm.ts";
import { scaleAccess, scaleBlocks } from "./norm.ts";
import { reduceColumns } from "./reduce.ts";
import { runRows } from "./rows.ts";

type Backward = Parameters<Kernels["rmsNormBackward"]>[0];

/** See `Kernels.rmsNorm`. `rstd` may be wider than the rows. */
export function rmsNorm(gpu: Gpu, args: Parameters<Kernels["rmsNorm"]>[0]): void {
  const { x, weight, out, rstd, rows, columns, eps } = args;
  const type = commonType(gpu, "rmsNorm", [x, out, weight]);
  const statType = floatType(gpu, "rmsNorm", rstd);
  for (const span of [x, out]) requireLength("rmsNorm", span, rows * columns);
  requireLength("rmsNorm", weight, columns);
  requireLength("rmsNorm", rstd, rows);
  const access = scaleAccess([x, out], [weight], columns);
  runRows(
    gpu,
    ({ wide, workgroup, kept, subgroups }) =>
      rmsNormSource(type, statType, wide, access, workgroup, kept, subgroups),
    {
      matrices: [x, out].map((span) => part(span, 0, rows * columns)),
      others: [
        { span: weight, perRow: 0 },
        { span: rstd, perRow: 1 },
      ],
    },
    rows,
    columns,
    { eps },
  );
}

/** See `Kernels.rmsNormBackward`. */
export function rmsNormBackward(gpu: Gpu, args: Backward): void {
  const { x, weight, rstd, gradient, dx, dWeight, rows, columns } = args;
  const kernel = "rmsNorm backward";
  const type = commonType(gpu, kernel, [x, weight, gradient, ...(dx === undefined ? [] : [dx])]);
  const statType = floatType(gpu, kernel, rstd);
  for (const span of [x, gradient]) requireLength(kernel, span, rows * columns);
  requireLength(kernel, rstd, rows);
  requireLength(kernel, weight, columns);
  // First, because the gradient of the input may take the place of the one that came.
  if (dWeight !== undefined) weightGradient(gpu, args, dWeight, type, statType);
  if (dx === undefined) return;
  requireLength(kernel, dx, rows * columns);
  const matrices = [x, gradient, dx];
  const access = scaleAccess(matrices, [weight], columns);
  runRows(
    gpu,
    ({ wide, workgroup, kept, subgroups }) =>
      rmsNormInputSource(type, statType, wide, access, workgroup, kept, subgroups),
    {
      matrices: matrices.map((span) => part(span, 0, rows * columns)),
      others: [
        { span: weight, perRow: 0 },
        { span: rstd, perRow: 1 },
      ],
    },
    rows,
    columns,
  );
}

/** Partial sums over blocks of rows, then their sum. */
function weightGradient(
  gpu: Gpu,
  { x, gradient, rstd, rows, columns }: Backward,
  dWeight: Span,
  type: FloatType,
  statType: FloatType,
): void {
  requireLength("rmsNorm backward", dWeight, columns);
  const { height, most, blocks, wide, vectors } = scaleBlocks(gpu, x, gradient, rows, columns);
  const source = rmsNormScaleSource(type, statType, wide);
  gpu.withScratch("float32", blocks * columns, (weights) => {
    for (let first = 0; first < rows; first += most) {
      const count = Math.min(most, rows - first);
      const [begin, number] = [first / height, Math.ceil(count / height)];
      const spans = [
        part(x, first * columns, count * columns),
        part(gradient, first * columns, count * columns),
        part(rstd, first, count),
        part(weights, begin * columns, number * columns),
      ];
      const grid = [Math.ceil(vectors / SCALE_WORKGROUP), number, 1] as const;
      gpu.dispatch(source, spans, { rows: count, vectors, height }, grid);
    }
    reduceColumns(gpu, "sum", weights, part(dWeight, 0, columns), 1, blocks, columns, false);
  });
}

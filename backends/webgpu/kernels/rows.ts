/**
 * Runs row kernels: picks width and workgroup, and goes over blocks of rows that fit a binding.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import { DTYPES } from "../../../core/contracts/dtype.ts";
import type { Gpu } from "../dispatch.ts";
import { congruent, leadOf, part, unitsPerBinding } from "../spans.ts";
import { keptVectors, rowWorkgroup } from "../wgsl/rows.ts";
import type { KernelSource } from "../wgsl/source.ts";

/** What a row kernel is given: its operands are the matrices, then the others. */
export interface RowOperands {
  /** [rows, columns], of which the workgroup of a row takes that row. */
  readonly matrices: readonly Span[];
  /** Others, with the elements of each that one row takes: 0 for those that all rows share. */
  readonly others?: readonly { readonly span: Span; readonly perRow: number }[];
}

/** How a row kernel is specialised. */
export interface RowVariant {
  readonly wide: boolean;
  readonly workgroup: number;
  /** Vectors of a row that an invocation may keep in registers. */
  readonly kept: number;
  readonly subgroups: boolean;
}

/** Runs `source` over rows, one workgroup each. */
export function runRows(
  gpu: Gpu,
  source: (variant: RowVariant) => KernelSource,
  operands: RowOperands,
  rows: number,
  columns: number,
  params: Readonly<Record<string, number>> = {},
): void {
  const { matrices, others = [] } = operands;
  if (rows === 0) return;
  const wide = congruent(matrices);
  const lead = wide ? leadOf(matrices[0]!) : 0;
  const workgroup = rowWorkgroup(columns, wide);
  const kept = keptVectors(columns, wide, lead === 0 && columns % 4 === 0, workgroup);
  const kernel = source({ wide, workgroup, kept, subgroups: gpu.features.subgroups });
  const block = rowsPerBinding(gpu, matrices, columns);
  for (let first = 0; first < rows; first += block) {
    const count = Math.min(block, rows - first);
    const spans = [
      ...matrices.map((span) => part(span, first * columns, count * columns)),
      ...others.map(({ span, perRow }) => (perRow === 0 ? span : part(span, first * perRow, count * perRow))),
    ];
    gpu.dispatch(kernel, spans, { ...params, rows: count, columns, lead }, count);
  }
}

/** Rows that fit a binding, a multiple of four so that blocks begin at the same place in their vectors. */
export function rowsPerBinding(gpu: Gpu, matrices: readonly Span[], columns: number): number {
  const widest = Math.max(...matrices.map(({ dtype }) => DTYPES[dtype].bytes));
  return Math.max(4, Math.floor(unitsPerBinding(gpu, widest * columns) / 4) * 4);
}

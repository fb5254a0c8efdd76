/**
 * Reductions and norms. How a reduction is cut depends on its extents alone, so that it repeats to the bit.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import { DTYPES } from "../../../core/contracts/dtype.ts";
import type { ReduceOp } from "../../../core/contracts/kernels.ts";
import type { Gpu } from "../dispatch.ts";
import { type FloatType, floatType, leadOf, part, requireLength, unitsPerBinding } from "../spans.ts";
import { columnReduceSource, columnsOfWorkgroup, type ReduceMap, rowReduceSource } from "../wgsl/reduce.ts";
import { rowWorkgroup } from "../wgsl/rows.ts";
import { fill } from "./fill.ts";

/** Elements of a row that one workgroup takes when there are few rows. */
const ROW_CHUNK = 8192;
/** Rows from which on they keep the device busy by themselves. */
const MANY_ROWS = 2048;
/** Elements of a column that one workgroup takes when there are few columns. */
const COLUMN_CHUNK = 256;
/** Elements of a column that are not worth a second pass. */
const SHORT_COLUMN = 1024;
/** Workgroups of columns from which on they keep the device busy by themselves. */
const MANY_COLUMNS = 1024;

/** A reduction of rows, with what is done to each element first. */
interface RowReduction {
  readonly op: ReduceOp;
  readonly map: ReduceMap;
  readonly power: number;
  readonly accumulate: boolean;
}

/** See `Kernels.reduce`. */
export function reduce(
  gpu: Gpu,
  op: ReduceOp,
  x: Span,
  out: Span,
  outer: number,
  extent: number,
  inner: number,
  accumulate: boolean,
): void {
  requireLength(`reduce ${op}`, x, outer * extent * inner);
  requireLength(`reduce ${op}`, out, outer * inner);
  if (outer * inner === 0) return;
  if (extent === 0) {
    if (!accumulate) fill(gpu, part(out, 0, outer * inner), op === "sum" ? 0 : Number.NEGATIVE_INFINITY);
    return;
  }
  const run = (from: Span, to: Span, count: number, height: number, add: boolean): void => {
    if (inner === 1) reduceRows(gpu, { op, map: "none", power: 0, accumulate: add }, from, to, count, height);
    else reduceColumns(gpu, op, from, to, count, height, inner, add);
  };
  const slice = extent * inner;
  const slices = Math.floor(unitsPerBinding(gpu, DTYPES[x.dtype].bytes) / slice);
  // Whole slices of the outer extent that fit a binding, or parts of one slice after the other.
  for (let first = 0; slices > 0 && first < outer; first += slices) {
    const count = Math.min(slices, outer - first);
    run(
      part(x, first * slice, count * slice),
      part(out, first * inner, count * inner),
      count,
      extent,
      accumulate,
    );
  }
  if (slices > 0) return;
  const most = unitsPerBinding(gpu, DTYPES[x.dtype].bytes * inner);
  for (let o = 0; o < outer; o++) {
    for (let first = 0; first < extent; first += most) {
      const height = Math.min(most, extent - first);
      const from = part(x, o * slice + first * inner, height * inner);
      run(from, part(out, o * inner, inner), 1, height, accumulate || first > 0);
    }
  }
}

/** See `Kernels.normPower`. `out` may be wider than `x`. */
export function normPower(gpu: Gpu, x: Span, out: Span, p: number): void {
  requireLength("normPower", out, 1);
  if (x.length === 0) {
    fill(gpu, part(out, 0, 1), 0);
    return;
  }
  const op = p === Number.POSITIVE_INFINITY ? "max" : "sum";
  const map = p === 1 || op === "max" ? "abs" : p === 2 ? "square" : "power";
  const block = unitsPerBinding(gpu, DTYPES[x.dtype].bytes);
  for (let first = 0; first < x.length; first += block) {
    const from = part(x, first, Math.min(block, x.length - first));
    reduceRows(gpu, { op, map, power: p, accumulate: first > 0 }, from, part(out, 0, 1), 1, from.length);
  }
}

/** Reduces [rows, extent] along its rows. */
function reduceRows(
  gpu: Gpu,
  reduction: RowReduction,
  x: Span,
  out: Span,
  rows: number,
  extent: number,
): void {
  const { op, map, power, accumulate } = reduction;
  const type = floatType(gpu, `reduce ${op}`, x);
  const outType = floatType(gpu, `reduce ${op}`, out);
  const chunks = rows >= MANY_ROWS ? 1 : Math.ceil(extent / ROW_CHUNK);
  const size = chunks === 1 ? extent : ROW_CHUNK;
  const run = (to: Span, toType: FloatType, add: boolean): void => {
    const { subgroups } = gpu.features;
    const source = rowReduceSource(op, map, type, toType, true, add, rowWorkgroup(size, true), subgroups);
    const groups = rows * chunks;
    gpu.dispatch(source, [x, to], { groups, extent, chunks, size, lead: leadOf(x), power }, groups);
  };
  if (chunks === 1) {
    run(out, outType, accumulate);
    return;
  }
  gpu.withScratch("float32", rows * chunks, (partial) => {
    run(partial, "f32", false);
    reduceRows(gpu, { op, map: "none", power: 0, accumulate }, partial, out, rows, chunks);
  });
}

/** Reduces [outer, extent, inner] along its middle. */
export function reduceColumns(
  gpu: Gpu,
  op: ReduceOp,
  x: Span,
  out: Span,
  outer: number,
  extent: number,
  inner: number,
  accumulate: boolean,
): void {
  const type = floatType(gpu, `reduce ${op}`, x);
  const outType = floatType(gpu, `reduce ${op}`, out);
  const wide = inner % 4 === 0 && leadOf(x) === 0 && leadOf(out) === 0;
  const width = wide ? 4 : 1;
  const columns = (outer * inner) / width;
  const perGroup = columnsOfWorkgroup(wide);
  const most = Math.ceil(MANY_COLUMNS / Math.ceil(columns / perGroup));
  const chunks = extent <= SHORT_COLUMN ? 1 : Math.min(Math.ceil(extent / COLUMN_CHUNK), most);
  const size = Math.ceil(extent / chunks);
  const run = (to: Span, toType: FloatType, add: boolean): void => {
    const n = columns * chunks;
    const params = { n, extent, inner: inner / width, chunks, size };
    const source = columnReduceSource(op, type, toType, wide, add);
    gpu.dispatch(source, [x, to], params, Math.ceil(n / perGroup));
  };
  if (chunks === 1) {
    run(out, outType, accumulate);
    return;
  }
  gpu.withScratch("float32", outer * chunks * inner, (partial) => {
    run(partial, "f32", false);
    reduceColumns(gpu, op, partial, out, outer, chunks, inner, accumulate);
  });
}

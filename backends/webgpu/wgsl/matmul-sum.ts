/**
 * Adds up the partial products of a split matrix product, in order, and finishes each element: alpha, bias, what was there, activation.
 *
 * @module
 */
import { epilogue, type Finish, finishName, finishOperands } from "./matmul-common.ts";
import type { KernelSource } from "./source.ts";

/** Threads of a workgroup, four neighbours of a row each. */
export const SUM_THREADS = 256;

/** The kernel for what becomes of a sum. */
export function matmulSum(finish: Finish): KernelSource {
  const { out, outVector } = finish;
  const read = outVector
    ? "sum += $partial[p.partial_at + (first >> 2u)];"
    : "for (var j = 0u; j < min(4u, p.n - column); j++) { sum[j] += $partial[p.partial_at + first + j]; }";
  return {
    name: `matmul sum ${out}${outVector ? "" : " scalar"}${finishName(finish)}`,
    operands: [{ name: "partial", type: outVector ? "vec4<f32>" : "f32" }, ...finishOperands(finish)],
    params: {
      m: "u32",
      n: "u32",
      splits: "u32",
      batches: "u32",
      outRow: "u32",
      outBatch: "u32",
      alpha: "f32",
    },
    workgroup: SUM_THREADS,
    declarations: epilogue(finish),
    main: `
  let across = (p.n + 3u) / 4u;
  let index = group * ${SUM_THREADS}u + t;
  let batch = index / (across * p.m);
  if (batch >= p.batches) { return; }
  let row = index / across % p.m;
  let column = index % across * 4u;
  var sum = vec4<f32>();
  for (var s = 0u; s < p.splits; s++) {
    let first = ((batch * p.splits + s) * p.m + row) * p.n + column;
    ${read}
  }
  emit(row, column, batch * p.outBatch, sum);`,
  };
}

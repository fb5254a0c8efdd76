/**
 * Root-mean-square normalisation over rows (Zhang & Sennrich, 2019) and its gradients, in plain TypeScript.
 *
 * @module
 */
import type { Kernels } from "../../../core/contracts/kernels.ts";
import { floatsOf, type Heap } from "./heap.ts";

/** See `Kernels.rmsNorm`. */
export function rmsNorm(heap: Heap, args: Parameters<Kernels["rmsNorm"]>[0]): void {
  const { rows, columns, eps } = args;
  const x = floatsOf(heap, "rmsNorm", args.x, rows * columns);
  const weight = floatsOf(heap, "rmsNorm", args.weight, columns);
  const out = floatsOf(heap, "rmsNorm", args.out, rows * columns);
  const rstds = floatsOf(heap, "rmsNorm", args.rstd, rows);
  for (let row = 0; row < rows; row++) {
    const begin = row * columns;
    let squares = 0;
    for (let i = 0; i < columns; i++) squares += x[begin + i]! ** 2;
    const rstd = 1 / Math.sqrt(squares / columns + eps);
    rstds[row] = rstd;
    for (let i = 0; i < columns; i++) out[begin + i] = x[begin + i]! * rstd * weight[i]!;
  }
}

/** See `Kernels.rmsNormBackward`. */
export function rmsNormBackward(heap: Heap, args: Parameters<Kernels["rmsNormBackward"]>[0]): void {
  const { rows, columns } = args;
  const kernel = "rmsNorm backward";
  const x = floatsOf(heap, kernel, args.x, rows * columns);
  const weight = floatsOf(heap, kernel, args.weight, columns);
  const rstds = floatsOf(heap, kernel, args.rstd, rows);
  const gradient = floatsOf(heap, kernel, args.gradient, rows * columns);
  const dx = args.dx && floatsOf(heap, kernel, args.dx, rows * columns);
  const dWeight = new Float64Array(columns);
  for (let row = 0; row < rows; row++) {
    const begin = row * columns;
    const rstd = rstds[row]!;
    let dot = 0;
    for (let i = 0; i < columns; i++) {
      const scaled = gradient[begin + i]! * x[begin + i]! * rstd;
      dWeight[i]! += scaled;
      dot += scaled * weight[i]!;
    }
    if (dx === undefined) continue;
    const projection = (dot / columns) * rstd;
    for (let i = 0; i < columns; i++) {
      dx[begin + i] = rstd * (gradient[begin + i]! * weight[i]! - x[begin + i]! * projection);
    }
  }
  if (args.dWeight !== undefined) floatsOf(heap, kernel, args.dWeight, columns).set(dWeight);
}

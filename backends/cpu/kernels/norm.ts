/**
 * Layer normalisation over rows and its gradients, in plain TypeScript.
 *
 * @module
 */
import type { Kernels } from "../../../core/contracts/kernels.ts";
import { floatsOf, type Heap } from "./heap.ts";

/** See `Kernels.layerNorm`. */
export function layerNorm(heap: Heap, args: Parameters<Kernels["layerNorm"]>[0]): void {
  const { rows, columns, eps } = args;
  const x = floatsOf(heap, "layerNorm", args.x, rows * columns);
  const weight = floatsOf(heap, "layerNorm", args.weight, columns);
  const bias = args.bias && floatsOf(heap, "layerNorm", args.bias, columns);
  const out = floatsOf(heap, "layerNorm", args.out, rows * columns);
  const means = floatsOf(heap, "layerNorm", args.mean, rows);
  const rstds = floatsOf(heap, "layerNorm", args.rstd, rows);
  for (let row = 0; row < rows; row++) {
    const begin = row * columns;
    let sum = 0;
    for (let i = 0; i < columns; i++) sum += x[begin + i]!;
    const mean = sum / columns;
    let squares = 0;
    for (let i = 0; i < columns; i++) squares += (x[begin + i]! - mean) ** 2;
    const rstd = 1 / Math.sqrt(squares / columns + eps);
    means[row] = mean;
    rstds[row] = rstd;
    for (let i = 0; i < columns; i++) {
      out[begin + i] = (x[begin + i]! - mean) * rstd * weight[i]! + (bias === undefined ? 0 : bias[i]!);
    }
  }
}

/** See `Kernels.layerNormBackward`. */
export function layerNormBackward(heap: Heap, args: Parameters<Kernels["layerNormBackward"]>[0]): void {
  const { rows, columns } = args;
  const kernel = "layerNorm backward";
  const x = floatsOf(heap, kernel, args.x, rows * columns);
  const weight = floatsOf(heap, kernel, args.weight, columns);
  const means = floatsOf(heap, kernel, args.mean, rows);
  const rstds = floatsOf(heap, kernel, args.rstd, rows);
  const gradient = floatsOf(heap, kernel, args.gradient, rows * columns);
  const dx = args.dx && floatsOf(heap, kernel, args.dx, rows * columns);
  const dWeight = new Float64Array(columns);
  const dBias = new Float64Array(columns);
  for (let row = 0; row < rows; row++) {
    const begin = row * columns;
    const mean = means[row]!;
    const rstd = rstds[row]!;
    let sum = 0;
    let dot = 0;
    for (let i = 0; i < columns; i++) {
      const g = gradient[begin + i]!;
      const normal = (x[begin + i]! - mean) * rstd;
      dWeight[i]! += g * normal;
      dBias[i]! += g;
      sum += g * weight[i]!;
      dot += g * weight[i]! * normal;
    }
    if (dx === undefined) continue;
    for (let i = 0; i < columns; i++) {
      const normal = (x[begin + i]! - mean) * rstd;
      dx[begin + i] = rstd * (gradient[begin + i]! * weight[i]! - (sum + normal * dot) / columns);
    }
  }
  if (args.dWeight !== undefined) floatsOf(heap, kernel, args.dWeight, columns).set(dWeight);
  if (args.dBias !== undefined) floatsOf(heap, kernel, args.dBias, columns).set(dBias);
}

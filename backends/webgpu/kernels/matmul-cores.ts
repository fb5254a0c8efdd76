/**
 * Whether a device has the matrix units that kernels are written for.
 *
 * @module
 */
import type { Gpu } from "../dispatch.ts";

/** Extent of the subgroup matrices that kernels use, and lanes of the subgroups that share them. */
const MATRIX = 16;
const LANES = 32;

/** Whether products of float16 matrices, added up in float32, run on matrix units of the shape that kernels use. */
export function tensorCores({ features }: Gpu): boolean {
  const { minLanes, maxLanes, matrices } = features;
  return (
    features.f16 &&
    minLanes === LANES &&
    maxLanes === LANES &&
    matrices.some(
      ({ component, result, m, n, k }) =>
        component === "f16" && result === "f32" && m === MATRIX && n === MATRIX && k === MATRIX,
    )
  );
}

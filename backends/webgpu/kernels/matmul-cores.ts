/**
 * Whether a device has the matrix units that kernels are written for.
 *
 * @module
 */
import type { Gpu } from "../dispatch.ts";
import { LANES, MATRIX } from "../wgsl/subgroup-matrix.ts";

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

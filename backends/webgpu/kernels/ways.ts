/**
 * Which ways of computing products and attention a device has.
 *
 * @module
 */
import type { Gpu } from "../dispatch.ts";

/** Extent of the subgroup matrices that kernels use, and lanes of the subgroups that share them. */
const MATRIX = 16;
const LANES = 32;

/** Lanes from which a subgroup is one of a GPU: processors simulate narrower ones with their vectors. */
const GPU_LANES = 16;

/** Whether workgroups are simulated, as on adapters that are a CPU: barriers then cost more than they save. */
export function simulated(gpu: Gpu): boolean {
  return gpu.features.maxLanes > 0 && gpu.features.maxLanes < GPU_LANES;
}

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

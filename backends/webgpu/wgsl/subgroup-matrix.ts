/**
 * Subgroup matrices (tensor cores) as kernels use them: square, of float16, added up in float32, one of each kind shared
 * by the lanes of a subgroup.
 *
 * @module
 */

/** Extent of a subgroup matrix in each dimension. */
export const MATRIX = 16;

/** Lanes of a subgroup. */
export const LANES = 32;

/**
 * A matrix of zeros. Said outright: a declaration without a value is zeroed once a function, not once an iteration, by
 * Dawn's SPIR-V for these types.
 */
export const ZERO: string = `subgroup_matrix_result<f32, ${MATRIX}, ${MATRIX}>()`;

/** Loads a factor from `tile`, the workgroup's memory, where `at` and `stride` count its words. */
export function loadMatrix(
  side: "left" | "right",
  order: "row_major" | "col_major",
  at: string,
  stride: number,
): string {
  return `subgroupMatrixLoad<subgroup_matrix_${side}<f16, ${MATRIX}, ${MATRIX}>, ${order}>(&tile, ${at}, ${stride}u)`;
}

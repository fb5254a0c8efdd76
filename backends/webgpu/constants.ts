/**
 * Usage and mode bits of the WebGPU specification, by value: Dawn's module does not define them globally.
 *
 * @module
 */

/** `GPUBufferUsage`. */
export const USAGE = {
  MAP_READ: 0x1,
  MAP_WRITE: 0x2,
  COPY_SRC: 0x4,
  COPY_DST: 0x8,
  UNIFORM: 0x40,
  STORAGE: 0x80,
  QUERY_RESOLVE: 0x200,
} as const;

/** `GPUMapMode`. */
export const MAP = { READ: 1, WRITE: 2 } as const;

/** `GPUShaderStage.COMPUTE`. */
export const COMPUTE_STAGE = 4;

/** Workgroups of one dispatch by dimension, in every implementation. */
export const MAX_GRID = 65_535;

/**
 * Rotary positions.
 *
 * @module
 */
import { ShapeError } from "../../../core/contracts/errors.ts";
import type { RotaryArgs } from "../../../core/contracts/kernels.ts";
import type { Gpu } from "../dispatch.ts";
import { commonType, leadOf, part, requireLength } from "../spans.ts";
import { ROTARY_WORKGROUP, rotarySource } from "../wgsl/rotary.ts";
import { rowsPerBinding } from "./rows.ts";

/** See `Kernels.rotary`. Angles may be of another float type than what they turn. */
export function rotary(gpu: Gpu, args: RotaryArgs): void {
  const { x, out, cos, sin, rows, length, heads, headDim, inverse } = args;
  if (headDim % 2 !== 0 || (length === 0 && rows > 0)) {
    throw new ShapeError(
      `webgpu rotary: heads of ${headDim} elements and angles of ${length} rows were given for ${rows} rows, allowed: an even number and at least one`,
    );
  }
  const type = commonType(gpu, "rotary", [x, out]);
  const tableType = commonType(gpu, "rotary angles", [cos, sin]);
  const width = heads * headDim;
  for (const span of [x, out]) requireLength("rotary", span, rows * width);
  for (const span of [cos, sin]) requireLength("rotary angles", span, (length * headDim) / 2);
  if (rows * width === 0) return;
  const wide = headDim % 8 === 0 && [x, out, cos, sin].every((span) => leadOf(span) === 0);
  const half = headDim / (wide ? 8 : 2);
  const kernel = rotarySource(type, tableType, wide);
  const tables = [cos, sin].map((span) => part(span, 0, (length * headDim) / 2));
  const block = rowsPerBinding(gpu, [x, out], width);
  for (let first = 0; first < rows; first += block) {
    const count = Math.min(block, rows - first);
    const spans = [...[x, out].map((span) => part(span, first * width, count * width)), ...tables];
    const n = count * heads * half;
    const params = { n, first, length, heads, half, sign: inverse ? -1 : 1 };
    gpu.dispatch(kernel, spans, params, Math.ceil(n / ROTARY_WORKGROUP));
  }
}

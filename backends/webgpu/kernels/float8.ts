/**
 * Bytes of float8_e4m3fn and their scales.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { DType } from "../../../core/contracts/dtype.ts";
import { ShapeError } from "../../../core/contracts/errors.ts";
import type { Gpu } from "../dispatch.ts";
import { inPieces, part, requireSame } from "../spans.ts";
import { FLOAT8_WORKGROUP, float8ScaleSource, fromFloat8Source, toFloat8Source } from "../wgsl/float8.ts";

/** See `Kernels.float8Scale`. */
export function float8Scale(gpu: Gpu, amax: Span, out: Span, powerOfTwo: boolean): void {
  requireSame("float8Scale", [amax, out]);
  requireType("float8Scale", "float32", [amax]);
  inPieces(gpu, [amax, out], out.length, (start, n) => {
    const pieces = [part(amax, start, n), part(out, start, n)];
    const params = { n, power_of_two: powerOfTwo ? 1 : 0 };
    gpu.dispatch(float8ScaleSource, pieces, params, Math.ceil(n / FLOAT8_WORKGROUP));
  });
}

/** See `Kernels.toFloat8`. */
export function toFloat8(gpu: Gpu, x: Span, scale: Span, out: Span, columns: number): void {
  requireType("toFloat8", "float32", [x, scale]);
  requireType("toFloat8", "uint8", [out]);
  eachPiece(gpu, "toFloat8", x, scale, out, columns, (pieces, params) => {
    const shift = pieces[2].offset % 4;
    const words = Math.ceil((shift + params.n) / 4);
    gpu.dispatch(toFloat8Source, pieces, { ...params, shift }, Math.ceil(words / FLOAT8_WORKGROUP));
  });
}

/** See `Kernels.fromFloat8`. */
export function fromFloat8(gpu: Gpu, x: Span, scale: Span, out: Span, columns: number): void {
  requireType("fromFloat8", "uint8", [x]);
  requireType("fromFloat8", "float32", [scale, out]);
  eachPiece(gpu, "fromFloat8", x, scale, out, columns, (pieces, params) => {
    const skip = pieces[0].offset % 4;
    gpu.dispatch(fromFloat8Source, pieces, { ...params, skip }, Math.ceil(params.n / FLOAT8_WORKGROUP));
  });
}

/** Goes over pieces that fit bindings, each with the scales of its own rows. */
function eachPiece(
  gpu: Gpu,
  kernel: string,
  x: Span,
  scale: Span,
  out: Span,
  columns: number,
  work: (
    pieces: readonly [x: Span, scale: Span, out: Span],
    params: { readonly n: number; readonly first: number; readonly columns: number },
  ) => void,
): void {
  if (x.length !== out.length || scale.length * columns < x.length) {
    throw new ShapeError(
      `webgpu ${kernel}: ${x.length} elements were given for ${out.length}, with ${scale.length} scales for ${columns} elements each`,
    );
  }
  inPieces(gpu, [x, out], x.length, (start, n) => {
    const row = Math.floor(start / columns);
    const first = start - row * columns;
    const rows = Math.ceil((first + n) / columns);
    work([part(x, start, n), part(scale, row, rows), part(out, start, n)], { n, first, columns });
  });
}

function requireType(kernel: string, dtype: DType, spans: readonly Span[]): void {
  const other = spans.find((span) => span.dtype !== dtype);
  if (other === undefined) return;
  throw new ShapeError(`webgpu ${kernel}: ${other.dtype} was given, allowed: ${dtype}`);
}

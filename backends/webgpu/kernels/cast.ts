/**
 * Conversion between dtypes.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import { DTYPES } from "../../../core/contracts/dtype.ts";
import { DeviceError, ShapeError } from "../../../core/contracts/errors.ts";
import type { Gpu } from "../dispatch.ts";
import { inPieces, part } from "../spans.ts";
import { CAST_WORKGROUP, type CastDType, castSource } from "../wgsl/cast.ts";
import { copyRaw } from "./copy.ts";

/** See `Kernels.cast`. Integers that do not fit are taken modulo the target's range. */
export function cast(gpu: Gpu, source: Span, target: Span): void {
  if (source.length !== target.length) {
    throw new ShapeError(`webgpu cast: ${source.length} elements were given for ${target.length}`);
  }
  if (source.dtype === target.dtype) {
    copyRaw(gpu, source, target);
    return;
  }
  const [from, to] = [castable(source), castable(target)];
  const words = (span: Span): number => {
    const { bytes } = DTYPES[span.dtype];
    return bytes < 4 ? ((span.offset * bytes) % 4) / bytes : 0;
  };
  const perWord = Math.max(1, 4 / DTYPES[target.dtype].bytes);
  inPieces(gpu, [source, target], source.length, (start, n) => {
    const pieces = [part(source, start, n), part(target, start, n)] as const;
    const [skip, shift] = [words(pieces[0]), words(pieces[1])];
    const invocations = Math.ceil((shift + n) / perWord);
    gpu.dispatch(castSource(from, to), pieces, { n, skip, shift }, Math.ceil(invocations / CAST_WORKGROUP));
  });
}

function castable(span: Span): CastDType {
  if (span.dtype !== "float64") return span.dtype;
  throw new DeviceError("webgpu cast: float64 is stored only, allowed: every other dtype");
}

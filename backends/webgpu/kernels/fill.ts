/**
 * Fill: any value in any dtype, as a pattern of bytes.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import { bytesOf, DTYPES, type DType, newHostArray } from "../../../core/contracts/dtype.ts";
import { fillElements } from "../../../core/runtime/half/fill.ts";
import type { Gpu } from "../dispatch.ts";
import { inPieces, part } from "../spans.ts";
import { BYTES_WORKGROUP, fillSource } from "../wgsl/bytes.ts";

/** See `Kernels.fill`. */
export function fill(gpu: Gpu, out: Span, value: number): void {
  const { bytes } = DTYPES[out.dtype];
  const [low, high] = patternOf(out.dtype, value);
  inPieces(gpu, [out], out.length, (start, length) => {
    const piece = part(out, start, length);
    const begin = (piece.offset * bytes) % 16;
    const end = begin + length * bytes;
    gpu.dispatch(fillSource, [piece], { begin, end, low, high }, Math.ceil(end / 16 / BYTES_WORKGROUP));
  });
}

/** The eight bytes that repeat when every element is `value`. */
function patternOf(dtype: DType, value: number): readonly [number, number] {
  const host = newHostArray(dtype, 8 / DTYPES[dtype].bytes);
  fillElements(host, dtype, value);
  const words = new Uint32Array(bytesOf(host).slice().buffer);
  return [words[0]!, words[1]!];
}

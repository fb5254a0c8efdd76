/**
 * Bytes of float8_e4m3fn and their scales, in plain TypeScript: 4 bits of exponent, 3 of fraction, no infinities, the
 * largest 448 (Micikevicius et al., "FP8 Formats for Deep Learning", 2022).
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import { ShapeError } from "../../../core/contracts/errors.ts";
import { type Heap, requireSame } from "./heap.ts";

const LARGEST = 448;
/** Scales of less than this are those of this, as in torchao. */
const SMALLEST_AMAX = 1e-12;
const NOT_A_NUMBER = 0x7f;

/** Bits of float32s: of 448, of 2^-6, which is the smallest normal, and of 2^14, whose last place is that of subnormals. */
const LARGEST_BITS = 0x43e00000;
const NORMAL_BITS = 0x3c800000;
const SHIFT_BITS = 0x46800000;
/** What the exponents of the two formats differ by. */
const BIAS_BITS = 0x3c000000;

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** Elements that are scaled at a time. */
const CHUNK = 1024;
const products = new Float32Array(CHUNK);
const productBits = new Uint32Array(products.buffer);

/** The value of every byte. */
const VALUES: Float32Array = Float32Array.from({ length: 256 }, (_, code) => {
  const sign = code < 128 ? 1 : -1;
  const [exponent, fraction] = [(code >> 3) & 15, code & 7];
  if ((code & 0x7f) === NOT_A_NUMBER) return Number.NaN;
  return exponent === 0 ? sign * fraction * 2 ** -9 : sign * (1 + fraction / 8) * 2 ** (exponent - 7);
});

/** See `Kernels.float8Scale`. */
export function float8Scale(heap: Heap, amax: Span, out: Span, powerOfTwo: boolean): void {
  requireSame("float8Scale", [amax, out]);
  const from = float32(heap, "float8Scale", amax);
  const to = float32(heap, "float8Scale", out);
  for (let i = 0; i < to.length; i++) {
    const scale = LARGEST / Math.max(from[i]!, SMALLEST_AMAX);
    to[i] = powerOfTwo && scale > 0 ? powerBelow(scale) : scale;
  }
}

/** See `Kernels.toFloat8`. */
export function toFloat8(heap: Heap, x: Span, scale: Span, out: Span, columns: number): void {
  requireRows("toFloat8", x, scale, out, columns);
  const source = float32(heap, "toFloat8", x);
  const scales = float32(heap, "toFloat8", scale);
  const target = bytes(heap, "toFloat8", out);
  for (let row = 0, i = 0; i < target.length; row++) {
    const by = scales[row]!;
    for (const end = Math.min(i + columns, target.length); i < end; ) {
      // Floats are written first and read as bits later: one by one, each would wait for the other.
      const count = Math.min(CHUNK, end - i);
      for (let j = 0; j < count; j++) products[j] = source[i + j]! * by;
      for (let j = 0; j < count; j++) target[i + j] = encoded(productBits[j]!);
      i += count;
    }
  }
}

/** See `Kernels.fromFloat8`. */
export function fromFloat8(heap: Heap, x: Span, scale: Span, out: Span, columns: number): void {
  requireRows("fromFloat8", x, scale, out, columns);
  const source = bytes(heap, "fromFloat8", x);
  const scales = float32(heap, "fromFloat8", scale);
  const target = float32(heap, "fromFloat8", out);
  for (let row = 0, i = 0; i < target.length; row++) {
    const by = scales[row]!;
    for (const end = Math.min(i + columns, target.length); i < end; i++) target[i] = VALUES[source[i]!]! / by;
  }
}

/** The byte nearest to a float32 of these bits. */
function encoded(of: number): number {
  const sign = (of >>> 24) & 0x80;
  const size = of & 0x7fffffff;
  if (size > 0x7f800000) return NOT_A_NUMBER;
  if (size >= LARGEST_BITS) return sign | 0x7e;
  if (size >= NORMAL_BITS) {
    // To nearest even; a carry out of the fraction goes into the exponent, as it should.
    return sign | ((size - BIAS_BITS + 0x7ffff + ((size >>> 20) & 1)) >>> 20);
  }
  // The addition of floats rounds to subnormals, and the last one carries into the smallest normal.
  bits[0] = size;
  float[0] = float[0]! + 2 ** 14;
  return sign | (bits[0]! - SHIFT_BITS);
}

/** The largest power of two that is at most `scale`, a positive float32 that is no subnormal. */
function powerBelow(scale: number): number {
  float[0] = scale;
  bits[0] = bits[0]! & 0x7f800000;
  return float[0]!;
}

function requireRows(kernel: string, x: Span, scale: Span, out: Span, columns: number): void {
  if (x.length !== out.length || scale.length * columns < x.length) {
    throw new ShapeError(
      `cpu ${kernel}: ${x.length} elements were given for ${out.length}, with ${scale.length} scales for ${columns} elements each`,
    );
  }
}

function float32(heap: Heap, kernel: string, span: Span): Float32Array {
  const view = heap.view(span);
  if (view instanceof Float32Array) return view;
  throw new ShapeError(`cpu ${kernel}: elements and scales are ${span.dtype}, allowed: float32`);
}

function bytes(heap: Heap, kernel: string, span: Span): Uint8Array {
  const view = heap.view(span);
  if (view instanceof Uint8Array && span.dtype === "uint8") return view;
  throw new ShapeError(`cpu ${kernel}: bytes are ${span.dtype}, allowed: uint8`);
}

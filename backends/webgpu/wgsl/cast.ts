/**
 * Conversion between dtypes on raw bits: what each has in WGSL differs by device (no 64-bit integers, no bfloat16, 16-bit
 * floats not everywhere, and rounding of the built-in conversions is left open), so all of it is integer arithmetic.
 *
 * An element becomes a float32, or a 64-bit integer of two words, and from there its new form.
 *
 * @module
 */
import type { DType } from "../../../core/contracts/dtype.ts";
import { memoized } from "../memo.ts";
import type { KernelSource } from "./source.ts";

/** Invocations of a workgroup. */
export const CAST_WORKGROUP = 256;

/** Dtypes that are converted; float64 is stored only. */
export type CastDType = Exclude<DType, "float64">;

const BYTES: Readonly<Record<CastDType, number>> = {
  float32: 4,
  float16: 2,
  bfloat16: 2,
  int32: 4,
  int64: 8,
  uint8: 1,
  bool: 1,
};

const FLOATING: ReadonlySet<DType> = new Set(["float32", "float16", "bfloat16"]);

/** Raw bits of element `i` as a float32's bits or a 64-bit integer. */
const LOAD: Readonly<Record<CastDType, string>> = {
  float32: "return word(i);",
  float16: "return widen_half(half_at(i));",
  bfloat16: "return half_at(i) << 16u;",
  int32: "let x = word(i); return vec2<u32>(x, select(0u, 0xffffffffu, x >= 0x80000000u));",
  int64: "return vec2<u32>(word(2u * i), word(2u * i + 1u));",
  uint8: "return vec2<u32>(byte_at(i), 0u);",
  bool: "return vec2<u32>(byte_at(i), 0u);",
};

/** Bits of the new form: of a float's bits `x`, or an integer `x`. */
const FROM_FLOAT: Readonly<Record<CastDType, string>> = {
  float32: "vec2<u32>(x, 0u)",
  float16: "vec2<u32>(narrow_half(x), 0u)",
  bfloat16: "vec2<u32>(narrow_bfloat(x), 0u)",
  int32: "vec2<u32>(truncate_float(x).x, 0u)",
  int64: "truncate_float(x)",
  uint8: "vec2<u32>(truncate_float(x).x & 0xffu, 0u)",
  bool: "vec2<u32>(select(0u, 1u, (x & 0x7fffffffu) != 0u), 0u)",
};
const FROM_INTEGER: Readonly<Record<CastDType, string>> = {
  float32: "vec2<u32>(float_of(x), 0u)",
  float16: "vec2<u32>(narrow_half(float_of(x)), 0u)",
  bfloat16: "vec2<u32>(narrow_bfloat(float_of(x)), 0u)",
  int32: "vec2<u32>(x.x, 0u)",
  int64: "x",
  uint8: "vec2<u32>(x.x & 0xffu, 0u)",
  bool: "vec2<u32>(select(0u, 1u, (x.x | x.y) != 0u), 0u)",
};

const FUNCTIONS = `
fn word(i: u32) -> u32 { return $source[p.source_at + i]; }
fn half_at(i: u32) -> u32 { let at = p.skip + i; return (word(at / 2u) >> (16u * (at % 2u))) & 0xffffu; }
fn byte_at(i: u32) -> u32 { let at = p.skip + i; return (word(at / 4u) >> (8u * (at % 4u))) & 0xffu; }

// The bits of x shifted right, the last of them rounded to nearest even. For shifts from 1 to 31.
fn shift_round(x: u32, shift: u32) -> u32 {
  let kept = x >> shift;
  let rest = x & ((1u << shift) - 1u);
  let middle = 1u << (shift - 1u);
  return kept + select(0u, 1u, rest > middle || (rest == middle && (kept & 1u) == 1u));
}

fn widen_half(h: u32) -> u32 {
  let sign = (h & 0x8000u) << 16u;
  let exponent = (h >> 10u) & 31u;
  let fraction = h & 0x3ffu;
  if (exponent == 31u) { return sign | 0x7f800000u | (fraction << 13u); }
  if (exponent != 0u) { return sign | ((exponent + 112u) << 23u) | (fraction << 13u); }
  if (fraction == 0u) { return sign; }
  let zeros = countLeadingZeros(fraction) - 21u;
  return sign | ((113u - zeros) << 23u) | (((fraction << zeros) & 0x3ffu) << 13u);
}

fn narrow_half(x: u32) -> u32 {
  let sign = (x >> 16u) & 0x8000u;
  let size = x & 0x7fffffffu;
  if (size > 0x7f800000u) { return sign | 0x7e00u; }
  if (size >= 0x47800000u) { return sign | 0x7c00u; }
  // A carry out of the fraction goes into the exponent, up to infinity, as it should.
  if (size >= 0x38800000u) { return sign | shift_round(size - 0x38000000u, 13u); }
  if (size < 0x33000000u) { return sign; }
  return sign | shift_round((size & 0x7fffffu) | 0x800000u, 126u - (size >> 23u));
}

fn narrow_bfloat(x: u32) -> u32 {
  if ((x & 0x7fffffffu) > 0x7f800000u) { return (x >> 16u) | 0x40u; }
  return (x + 0x7fffu + ((x >> 16u) & 1u)) >> 16u;
}

fn negated(x: vec2<u32>) -> vec2<u32> {
  return vec2<u32>(~x.x + 1u, ~x.y + select(0u, 1u, x.x == 0u));
}

// Towards zero, modulo 2^64; 0 for what is no number and for infinity.
fn truncate_float(x: u32) -> vec2<u32> {
  let exponent = (x >> 23u) & 255u;
  if (exponent < 127u || exponent == 255u) { return vec2<u32>(0u, 0u); }
  let mantissa = (x & 0x7fffffu) | 0x800000u;
  var result = vec2<u32>(0u, 0u);
  if (exponent < 150u) { result = vec2<u32>(mantissa >> (150u - exponent), 0u); }
  else {
    let shift = exponent - 150u;
    if (shift == 0u) { result = vec2<u32>(mantissa, 0u); }
    else if (shift < 32u) { result = vec2<u32>(mantissa << shift, mantissa >> (32u - shift)); }
    else if (shift < 64u) { result = vec2<u32>(0u, mantissa << (shift - 32u)); }
  }
  if (x >= 0x80000000u) { return negated(result); }
  return result;
}

// The nearest float32 of a signed 64-bit integer, as bits.
fn float_of(x: vec2<u32>) -> u32 {
  let negative = x.y >= 0x80000000u;
  var size = x;
  if (negative) { size = negated(x); }
  if (size.x == 0u && size.y == 0u) { return 0u; }
  // Shifted so that the highest bit is bit 31 of the high word; what is lost below the rounding bit is kept as one.
  var zeros = countLeadingZeros(size.y);
  if (size.y == 0u) { zeros = 32u + countLeadingZeros(size.x); size = vec2<u32>(0u, size.x << (zeros - 32u)); }
  else if (zeros > 0u) { size = vec2<u32>(size.x << zeros, (size.y << zeros) | (size.x >> (32u - zeros))); }
  let sticky = size.y | select(0u, 1u, size.x != 0u);
  let mantissa = shift_round(sticky, 8u);
  // The mantissa's highest bit adds one to the exponent, and so does a carry.
  return (((189u - zeros) << 23u) + mantissa) | select(0u, 0x80000000u, negative);
}
`;

/** One invocation a word of the result (two for int64), which may begin before the span and end behind it. */
export const castSource: (from: CastDType, to: CastDType) => KernelSource = memoized(
  (from, to): KernelSource => {
    const floating = FLOATING.has(from);
    const bytes = BYTES[to];
    const perWord = Math.max(1, 4 / bytes);
    const bits = 8 * Math.min(4, bytes);
    const mask = bits === 32 ? 0xffffffff : 2 ** bits - 1;
    const store =
      bytes === 8
        ? "$target[p.target_at + 2u * i] = value.x; $target[p.target_at + 2u * i + 1u] = value.y;"
        : "$target[p.target_at + i] = value.x;";
    const whole = `let value = convert(load(i)); ${store}`;
    const packed = `
      var word = $target[p.target_at + i];
      for (var j = 0u; j < ${perWord}u; j++) {
        let at = ${perWord}u * i + j;
        if (at < p.shift || at >= p.shift + p.n) { continue; }
        let place = ${bits}u * j;
        word = (word & ~(${mask}u << place)) | (convert(load(at - p.shift)).x << place);
      }
      $target[p.target_at + i] = word;
    `;
    return {
      name: `cast ${from} ${to}`,
      operands: [
        { name: "source", type: "u32" },
        { name: "target", type: "u32", write: true },
      ],
      params: { n: "u32", skip: "u32", shift: "u32" },
      workgroup: CAST_WORKGROUP,
      declarations: `${FUNCTIONS}
fn load(i: u32) -> ${floating ? "u32" : "vec2<u32>"} { ${LOAD[from]} }
fn convert(x: ${floating ? "u32" : "vec2<u32>"}) -> vec2<u32> { return ${(floating ? FROM_FLOAT : FROM_INTEGER)[to]}; }
`,
      main: `
        let i = group * ${CAST_WORKGROUP}u + t;
        if (${perWord}u * i >= p.shift + p.n) { return; }
        ${perWord === 1 ? whole : packed}
      `,
    };
  },
);

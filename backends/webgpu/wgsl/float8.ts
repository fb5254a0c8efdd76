/**
 * Bytes of float8_e4m3fn and their scales. Rounding, limits and what is no number go by bits: WGSL leaves open what its
 * own functions make of not-a-number.
 *
 * @module
 */
import type { KernelSource } from "./source.ts";

/** Invocations of a workgroup. */
export const FLOAT8_WORKGROUP = 256;

/** Factors from largest magnitudes; one invocation each. Powers of two are exact: 448 is 1.75 times 2^8. */
export const float8ScaleSource: KernelSource = {
  name: "float8-scale",
  operands: [
    { name: "amax", type: "u32" },
    { name: "out", type: "u32", write: true },
  ],
  params: { n: "u32", power_of_two: "u32" },
  workgroup: FLOAT8_WORKGROUP,
  main: `
    let i = group * ${FLOAT8_WORKGROUP}u + t;
    if (i >= p.n) { return; }
    let given = $amax[p.amax_at + i];
    // Of positive floats and their bits the order is the same.
    let size = max(given & 0x7fffffffu, bitcast<u32>(1e-12));
    var scale = bitcast<u32>(448.0 / bitcast<f32>(size));
    if (p.power_of_two != 0u) {
      scale = (262u - (size >> 23u) - select(0u, 1u, (size & 0x7fffffu) > 0x600000u)) << 23u;
    }
    if (size == 0x7f800000u) { scale = 0u; }
    if (size > 0x7f800000u) { scale = given; }
    $out[p.out_at + i] = scale;
  `,
};

/**
 * Bytes from floats; one invocation a word of the result, which may begin `shift` bytes before the span and end behind it.
 * The first element is number `first` of its row.
 */
export const toFloat8Source: KernelSource = {
  name: "to-float8",
  operands: [
    { name: "x", type: "f32" },
    { name: "scale", type: "f32" },
    { name: "out", type: "u32", write: true },
  ],
  params: { n: "u32", shift: "u32", first: "u32", columns: "u32" },
  workgroup: FLOAT8_WORKGROUP,
  declarations: `
fn encoded(float: u32) -> u32 {
  let sign = (float >> 24u) & 0x80u;
  let size = float & 0x7fffffffu;
  if (size > 0x7f800000u) { return 0x7fu; }
  if (size >= 0x43e00000u) { return sign | 0x7eu; }
  // To nearest even; a carry out of the fraction goes into the exponent, as it should.
  if (size >= 0x3c800000u) { return sign | ((size - 0x3c000000u + 0x7ffffu + ((size >> 20u) & 1u)) >> 20u); }
  // Below 2^-10 all is zero, the middle too, as zero is even. Subnormals are multiples of 2^-9.
  if (size <= 0x3a800000u) { return sign; }
  let cut = 141u - (size >> 23u);
  let mantissa = (size & 0x7fffffu) | 0x800000u;
  let kept = mantissa >> cut;
  let rest = mantissa & ((1u << cut) - 1u);
  let middle = 1u << (cut - 1u);
  return sign | (kept + select(0u, 1u, rest > middle || (rest == middle && (kept & 1u) == 1u)));
}
`,
  main: `
    let i = group * ${FLOAT8_WORKGROUP}u + t;
    if (4u * i >= p.shift + p.n) { return; }
    var word = $out[p.out_at + i];
    for (var j = 0u; j < 4u; j++) {
      let at = 4u * i + j;
      if (at < p.shift || at >= p.shift + p.n) { continue; }
      let element = at - p.shift;
      let scale = $scale[p.scale_at + (p.first + element) / p.columns];
      let code = encoded(bitcast<u32>($x[p.x_at + element] * scale));
      word = (word & ~(0xffu << (8u * j))) | (code << (8u * j));
    }
    $out[p.out_at + i] = word;
  `,
};

/** Floats from bytes, which begin `skip` bytes behind the first word; one invocation each. */
export const fromFloat8Source: KernelSource = {
  name: "from-float8",
  operands: [
    { name: "x", type: "u32" },
    { name: "scale", type: "f32" },
    { name: "out", type: "u32", write: true },
  ],
  params: { n: "u32", skip: "u32", first: "u32", columns: "u32" },
  workgroup: FLOAT8_WORKGROUP,
  declarations: `
fn size_of(code: u32) -> f32 {
  if (code < 8u) { return f32(code) * 0.001953125; }
  return bitcast<f32>((code << 20u) + 0x3c000000u);
}
`,
  main: `
    let i = group * ${FLOAT8_WORKGROUP}u + t;
    if (i >= p.n) { return; }
    let at = p.skip + i;
    let code = ($x[p.x_at + at / 4u] >> (8u * (at % 4u))) & 0xffu;
    let scale = $scale[p.scale_at + (p.first + i) / p.columns];
    var value = bitcast<u32>(size_of(code & 0x7fu) / scale) | ((code & 0x80u) << 24u);
    let scale_bits = bitcast<u32>(scale) & 0x7fffffffu;
    if ((code & 0x7fu) == 0x7fu || scale_bits > 0x7f800000u) { value = 0x7fc00000u; }
    $out[p.out_at + i] = value;
  `,
};

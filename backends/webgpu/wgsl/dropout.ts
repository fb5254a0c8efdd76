/**
 * Dropout: Philox4x32-10 (Salmon et al., 2011), one block of four words an invocation, with 32-bit arithmetic.
 *
 * @module
 */
import { memoized } from "../memo.ts";
import type { FloatType } from "../spans.ts";
import type { KernelSource } from "./source.ts";

/** Invocations of a workgroup. */
export const DROPOUT_WORKGROUP = 256;

const PHILOX = `
fn high_product(a: u32, b: u32) -> u32 {
  let a0 = a & 0xffffu; let a1 = a >> 16u;
  let b0 = b & 0xffffu; let b1 = b >> 16u;
  let low = a0 * b0;
  let first = a1 * b0 + (low >> 16u);
  let second = a0 * b1 + (first & 0xffffu);
  return a1 * b1 + (first >> 16u) + (second >> 16u);
}
fn philox(counter: u32, low: u32, high: u32) -> vec4<u32> {
  var x = vec4<u32>(counter, 0u, 0u, 0u);
  var k = vec2<u32>(low, high);
  for (var round = 0u; round < 10u; round++) {
    let h0 = high_product(0xd2511f53u, x.x);
    let h1 = high_product(0xcd9e8d57u, x.z);
    x = vec4<u32>(h1 ^ x.y ^ k.x, 0xcd9e8d57u * x.z, h0 ^ x.w ^ k.y, 0xd2511f53u * x.x);
    k += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
  }
  return x;
}
`;

/** Keeps element i when word `i % 4` of block `i / 4` is at least `threshold`. Wide when spans begin at vectors. */
export const dropoutSource: (type: FloatType, wide: boolean) => KernelSource = memoized(
  (type, wide): KernelSource => {
    const element = wide ? (`vec4<${type}>` as const) : type;
    const scalars = [0, 1, 2, 3].map((j) => {
      const place = wide ? `[p.out_at + i][${j}]` : `[p.out_at + 4u * i + ${j}u]`;
      const from = wide ? `[p.x_at + i][${j}]` : `[p.x_at + 4u * i + ${j}u]`;
      return `if (4u * i + ${j}u < p.n) { $out${place} = ${type}(select(0.0, f32($x${from}) * p.scale, words[${j}] >= p.threshold)); }`;
    });
    const whole = `
      let kept = vec4<f32>($x[p.x_at + i]) * p.scale;
      $out[p.out_at + i] = vec4<${type}>(select(vec4<f32>(0), kept, words >= vec4<u32>(p.threshold)));
    `;
    return {
      name: `dropout ${element}`,
      operands: [
        { name: "x", type: element },
        { name: "out", type: element, write: true },
      ],
      params: { n: "u32", first: "u32", threshold: "u32", scale: "f32", low: "u32", high: "u32" },
      workgroup: DROPOUT_WORKGROUP,
      declarations: PHILOX,
      main: `
        let i = group * ${DROPOUT_WORKGROUP}u + t;
        if (4u * i >= p.n) { return; }
        let words = philox(p.first + i, p.low, p.high);
        ${wide ? `if (4u * i + 4u <= p.n) { ${whole} return; }` : ""}
        ${scalars.join("\n        ")}
      `,
    };
  },
);

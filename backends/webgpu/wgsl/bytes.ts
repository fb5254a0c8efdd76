/**
 * Kernels that move raw bits, whatever they mean: fill and strided copies.
 *
 * Memory is written in words of four bytes. Elements that are shorter share a word with others, which other invocations
 * may write at the same time: those go through atomics, each invocation touching its own bits.
 *
 * @module
 */
import { memoized } from "../memo.ts";
import type { FloatType } from "../spans.ts";
import type { ElementType, KernelSource } from "./source.ts";

/** Invocations of a workgroup. */
export const BYTES_WORKGROUP = 256;

/** Writes a pattern of eight bytes over the bytes from `begin` to `end`; one invocation a vector of 16 bytes. */
export const fillSource: KernelSource = {
  name: "fill",
  operands: [{ name: "out", type: "vec4<u32>", write: true }],
  params: { begin: "u32", end: "u32", low: "u32", high: "u32" },
  workgroup: BYTES_WORKGROUP,
  // Bits of a word's bytes from `begin` to `end`, where the word is at byte `at`.
  declarations: `
fn bits_from(at: u32, byte: u32) -> u32 {
  if (byte <= at) { return 0xffffffffu; }
  return select(0xffffffffu << (8u * (byte - at)), 0u, byte >= at + 4u);
}
fn mask_of(at: u32) -> u32 { return bits_from(at, p.begin) & ~bits_from(at, p.end); }
`,
  main: `
    let at = 16u * (group * ${BYTES_WORKGROUP}u + t);
    if (at >= p.end) { return; }
    let pattern = vec4<u32>(p.low, p.high, p.low, p.high);
    let i = p.out_at + at / 16u;
    if (at >= p.begin && at + 16u <= p.end) { $out[i] = pattern; return; }
    let mask = vec4<u32>(mask_of(at), mask_of(at + 4u), mask_of(at + 8u), mask_of(at + 12u));
    $out[i] = ($out[i] & ~mask) | (pattern & mask);
  `,
};

/** What a copy moves at a time: its bytes, of whole words, or less. */
export type CopyUnit = 1 | 2 | 4 | 8 | 16;

const UNITS: Readonly<Record<CopyUnit, ElementType>> = {
  1: "u32",
  2: "u32",
  4: "u32",
  8: "vec2<u32>",
  16: "vec4<u32>",
};

/** Boxes that one dispatch copies at most. */
export const MAX_BOXES = 64;

/** Rows of the table that a box of `rank` dimensions takes: count and offsets, sizes, strides in source and target. */
export function boxRows(rank: number): number {
  return Math.ceil((3 + 3 * rank) / 4);
}

/** Sets `s` and `d` to the places of element `i` of box `box` in source and target. */
function boxPlaces(rank: number): string {
  const word = (n: number): string => `p.table[row + ${n >> 2}u].${"xyzw"[n & 3]}`;
  const lines = [`let row = box * ${boxRows(rank)}u;`, `let count = ${word(0)};`];
  const body = [`var s = ${word(1)}; var d = ${word(2)}; var rest = i;`];
  for (let axis = rank - 1; axis >= 0; axis--) {
    const size = word(3 + axis);
    body.push(axis > 0 ? `{ let at = rest % ${size}; rest = rest / ${size};` : "{ let at = rest;");
    body.push(`s += at * ${word(3 + rank + axis)}; d += at * ${word(3 + 2 * rank + axis)}; }`);
  }
  return `${lines.join(" ")}
    for (var i = w.x * ${BYTES_WORKGROUP}u + t; i < count; i += grid.x * ${BYTES_WORKGROUP}u) {
      ${body.join(" ")}
      move_one(s, d);
    }`;
}

function boxKernel(
  name: string,
  types: readonly [ElementType, ElementType],
  rank: number,
  boxes: number,
  move: string,
): KernelSource {
  return {
    name: `${name} rank ${rank} of ${boxes}`,
    operands: [
      { name: "source", type: types[0] },
      { name: "target", type: types[1], write: true },
    ],
    params: { skip: "u32", shift: "u32" },
    table: boxes * boxRows(rank),
    workgroup: BYTES_WORKGROUP,
    declarations: `fn move_one(s: u32, d: u32) { ${move} }`,
    main: `let box = w.y; ${boxPlaces(rank)}`,
  };
}

/**
 * Copies boxes of units; the grid's y is the box. Shorter units than words lie `skip` and `shift` units behind the first
 * word of source and target.
 */
export const copySource: (unit: CopyUnit, rank: number, boxes: number) => KernelSource = memoized(
  (unit, rank, boxes): KernelSource => {
    if (unit >= 4) {
      const type = UNITS[unit];
      const move = "$target[p.target_at + d] = $source[p.source_at + s];";
      return boxKernel(`copy ${unit} bytes`, [type, type], rank, boxes, move);
    }
    const perWord = 4 / unit;
    const bits = 8 * unit;
    const move = `
      let taken = p.skip + s;
      let put = p.shift + d;
      let value = ($source[p.source_at + taken / ${perWord}u] >> (${bits}u * (taken % ${perWord}u))) & ${2 ** bits - 1}u;
      let place = ${bits}u * (put % ${perWord}u);
      atomicAnd(&$target[p.target_at + put / ${perWord}u], ~(${2 ** bits - 1}u << place));
      atomicOr(&$target[p.target_at + put / ${perWord}u], value << place);
    `;
    return boxKernel(`copy ${unit} bytes`, ["u32", "atomic<u32>"], rank, boxes, move);
  },
);

/** Adds boxes of floats, or of vectors of four. */
export const addSource: (type: FloatType, wide: boolean, rank: number, boxes: number) => KernelSource =
  memoized((type, wide, rank, boxes): KernelSource => {
    const element = wide ? (`vec4<${type}>` as const) : type;
    const sum = wide
      ? "vec4<f32>($target[at]) + vec4<f32>($source[p.source_at + s])"
      : "f32($target[at]) + f32($source[p.source_at + s])";
    const move = `let at = p.target_at + d; $target[at] = ${element}(${sum});`;
    return boxKernel(`copy-add ${element}`, [element, element], rank, boxes, move);
  });

/**
 * Table lookup, and its gradient without atomics on floats.
 *
 * The gradient of a table row is the sum of the gradients of the positions that picked it, in their order. The first
 * such position owns the row: its workgroup looks through the indices behind it and adds. A workgroup that finds its
 * index before itself leaves. That reads all indices for every position, from cache: less work than sorting them until
 * there are tens of thousands.
 *
 * @module
 */
import { memoized } from "../memo.ts";
import type { FloatType } from "../spans.ts";
import { SPECIAL } from "./math.ts";
import { rowElement } from "./rows.ts";
import type { KernelSource } from "./source.ts";

/** Invocations of a workgroup. */
export const EMBEDDING_WORKGROUP = 256;

/** `index_at(i)`: index i, or all ones when it is negative or beyond 32 bits. */
function indexAt(long: boolean): string {
  const body = long
    ? "let low = $indices[p.indices_at + 2u * i]; let high = $indices[p.indices_at + 2u * i + 1u]; return select(0xffffffffu, low, high == 0u);"
    : "let low = $indices[p.indices_at + i]; return select(low, 0xffffffffu, low >= 0x80000000u);";
  return `fn index_at(i: u32) -> u32 { ${body} }`;
}

/**
 * One invocation a vector (or scalar) of the result; the table shown has `shown` rows from `base` on. Indices outside the
 * whole table of `entries` rows give NaN: nothing can be thrown here.
 */
export const embeddingSource: (type: FloatType, wide: boolean, long: boolean) => KernelSource = memoized(
  (type, wide, long): KernelSource => ({
    name: `embedding ${type}${wide ? "x4" : ""}${long ? " long" : ""}`,
    operands: [
      { name: "table", type: rowElement(type, wide) },
      { name: "indices", type: "u32" },
      { name: "out", type: rowElement(type, wide), write: true },
    ],
    params: { n: "u32", vectors: "u32", base: "u32", shown: "u32", entries: "u32" },
    workgroup: EMBEDDING_WORKGROUP,
    declarations: `${SPECIAL}${indexAt(long)}`,
    main: `
      let i = group * ${EMBEDDING_WORKGROUP}u + t;
      if (i >= p.n) { return; }
      let index = index_at(i / p.vectors);
      if (index >= p.entries) { $out[p.out_at + i] = ${rowElement(type, wide)}(${type}(nan())); return; }
      if (index < p.base || index - p.base >= p.shown) { return; }
      $out[p.out_at + i] = $table[p.table_at + (index - p.base) * p.vectors + i % p.vectors];
    `,
  }),
);

/** Indices that an invocation looks at before the workgroup meets. */
const INDICES_EACH = 4;
const TILE = EMBEDDING_WORKGROUP * INDICES_EACH;

/**
 * One workgroup for each position and block of columns. The table shown has `shown` rows from `base` on, and what the
 * positions give is added to it.
 */
export const embeddingBackwardSource: (type: FloatType, wide: boolean, long: boolean) => KernelSource =
  memoized((type, wide, long): KernelSource => {
    const value = wide ? "vec4<f32>" : "f32";
    const element = rowElement(type, wide);
    return {
      name: `embedding-backward ${type}${wide ? "x4" : ""}${long ? " long" : ""}`,
      operands: [
        { name: "gradient", type: element },
        { name: "indices", type: "u32" },
        { name: "table", type: element, write: true },
      ],
      params: { positions: "u32", vectors: "u32", base: "u32", shown: "u32", blocks: "u32" },
      workgroup: EMBEDDING_WORKGROUP,
      declarations: `
${indexAt(long)}
var<workgroup> found: array<atomic<u32>, ${TILE / 32}>;
var<workgroup> earlier: u32;
`,
      main: `
        let own = group / p.blocks;
        let column = (group % p.blocks) * ${EMBEDDING_WORKGROUP}u + t;
        if (own >= p.positions) { return; }
        let index = index_at(own);
        if (index < p.base || index - p.base >= p.shown) { return; }
        if (t == 0u) { earlier = 0u; }
        workgroupBarrier();
        for (var first = 0u; first < own; first += ${TILE}u) {
          var seen = false;
          for (var j = t; j < ${TILE}u; j += ${EMBEDDING_WORKGROUP}u) {
            let at = first + j;
            if (at < own) { seen = seen || index_at(at) == index; }
          }
          if (seen) { earlier = 1u; }
          if (workgroupUniformLoad(&earlier) != 0u) { return; }
        }
        var sum = ${value}(0);
        for (var first = own; first < p.positions; first += ${TILE}u) {
          if (t < ${TILE / 32}u) { atomicStore(&found[t], 0u); }
          workgroupBarrier();
          for (var j = t; j < ${TILE}u; j += ${EMBEDDING_WORKGROUP}u) {
            let at = first + j;
            if (at < p.positions && index_at(at) == index) { atomicOr(&found[j / 32u], 1u << (j % 32u)); }
          }
          workgroupBarrier();
          for (var k = 0u; k < ${TILE / 32}u; k++) {
            var rest = atomicLoad(&found[k]);
            while (rest != 0u) {
              let at = first + 32u * k + countTrailingZeros(rest);
              rest = rest & (rest - 1u);
              if (column < p.vectors) { sum += ${value}($gradient[p.gradient_at + at * p.vectors + column]); }
            }
          }
          workgroupBarrier();
        }
        if (column < p.vectors) {
          let at = p.table_at + (index - p.base) * p.vectors + column;
          $table[at] = ${element}(${value}($table[at]) + sum);
        }
      `,
    };
  });

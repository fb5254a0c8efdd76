/**
 * Rotary positions: an invocation turns one pair of elements, or four neighbouring pairs.
 *
 * @module
 */
import { memoized } from "../memo.ts";
import type { FloatType } from "../spans.ts";
import { rowElement } from "./rows.ts";
import type { KernelSource } from "./source.ts";

/** Invocations of a workgroup. */
export const ROTARY_WORKGROUP = 256;

/**
 * See `Kernels.rotary`; `first` is the first row's among all rows, `half` counts vectors of half a head, `sign` is -1 for
 * the inverse. Operands: x, out, cos, sin.
 */
export const rotarySource: (type: FloatType, tableType: FloatType, wide: boolean) => KernelSource = memoized(
  (type, tableType, wide): KernelSource => {
    const value = rowElement("f32", wide);
    return {
      name: `rotary ${type}${wide ? "x4" : ""} ${tableType}`,
      operands: [
        { name: "x", type: rowElement(type, wide) },
        { name: "out", type: rowElement(type, wide), write: true },
        { name: "cos", type: rowElement(tableType, wide) },
        { name: "sin", type: rowElement(tableType, wide) },
      ],
      params: { n: "u32", first: "u32", length: "u32", heads: "u32", half: "u32", sign: "f32" },
      workgroup: ROTARY_WORKGROUP,
      main: `
        let i = group * ${ROTARY_WORKGROUP}u + t;
        if (i >= p.n) { return; }
        let d = i % p.half;
        let head = i / p.half;
        let angle = (p.first + head / p.heads) % p.length * p.half + d;
        let at = head * 2u * p.half + d;
        let a = ${value}($x[p.x_at + at]);
        let b = ${value}($x[p.x_at + at + p.half]);
        let c = ${value}($cos[p.cos_at + angle]);
        let s = ${value}($sin[p.sin_at + angle]) * p.sign;
        $out[p.out_at + at] = ${rowElement(type, wide)}(a * c - b * s);
        $out[p.out_at + at + p.half] = ${rowElement(type, wide)}(b * c + a * s);
      `,
    };
  },
);

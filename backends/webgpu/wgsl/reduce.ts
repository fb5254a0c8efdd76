/**
 * Reductions: along rows by workgroups, along columns by invocations. Long ones go in two passes, partial results first.
 *
 * Maxima are taken of keys, unsigned numbers in the order of the floats with NaN above all, so that NaN wins.
 *
 * @module
 */
import type { ReduceOp } from "../../../core/contracts/kernels.ts";
import { memoized } from "../memo.ts";
import type { FloatType } from "../spans.ts";
import { SPECIAL } from "./math.ts";
import { eachVector, rowElement, rowPrelude, workgroupReduction } from "./rows.ts";
import type { KernelSource } from "./source.ts";

/** What is done to each element first; `power` is |x|^p. */
export type ReduceMap = "none" | "abs" | "square" | "power";

const MAPS: Readonly<Record<ReduceMap, string>> = {
  none: "x",
  abs: "abs(x)",
  square: "x * x",
  power: "pow(abs(x), V(p.power))",
};

/** Keys, and back. The key of minus infinity is the least of a number. */
const KEYS = `
${SPECIAL}
const LOWEST_KEY = 0x007fffffu;
fn key_of(x: f32) -> u32 {
  if (is_nan(x)) { return 0xffffffffu; }
  let bits = bitcast<u32>(x);
  return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}
fn number_of(key: u32) -> f32 {
  if (key == 0xffffffffu) { return nan(); }
  return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u));
}
`;

/** `out[o * chunks + chunk] = op of x[o, chunk * size ...]`, one workgroup each. Params of `power` maps have one more. */
export const rowReduceSource: (
  op: ReduceOp,
  map: ReduceMap,
  type: FloatType,
  outType: FloatType,
  wide: boolean,
  accumulate: boolean,
  workgroup: number,
  subgroups: boolean,
) => KernelSource = memoized(
  (
    op: ReduceOp,
    map: ReduceMap,
    type: FloatType,
    outType: FloatType,
    wide: boolean,
    accumulate: boolean,
    workgroup: number,
    subgroups: boolean,
  ): KernelSource => {
    const reduction = workgroupReduction(workgroup, subgroups);
    const key = wide ? "max(max(key_of(v.x), key_of(v.y)), max(key_of(v.z), key_of(v.w)))" : "key_of(v)";
    const [start, outside, step, total] =
      op === "sum"
        ? ["0.0", "V(0)", "s += sum_of(v);", reduction.sum("s")]
        : ["LOWEST_KEY", "V(minus_infinity())", `s = max(s, ${key});`, `number_of(${reduction.maxKey("s")})`];
    const before = "f32($out[p.out_at + group])";
    const joined = op === "sum" ? `${before} + total` : `max_or_nan(${before}, total)`;
    return {
      name: `reduce-${op} ${map} ${type}${wide ? "x4" : ""} ${outType}${accumulate ? " add" : ""} ${workgroup}`,
      operands: [
        { name: "x", type: rowElement(type, wide) },
        { name: "out", type: outType, write: true },
      ],
      params: {
        groups: "u32",
        extent: "u32",
        chunks: "u32",
        size: "u32",
        lead: "u32",
        ...(map === "power" ? { power: "f32" } : {}),
      },
      workgroup,
      features: reduction.features,
      declarations: KEYS + rowPrelude(wide) + reduction.declarations,
      main: `
        if (group >= p.groups) { return; }
        let row = group / p.chunks;
        let chunk = group % p.chunks;
        let begin = p.lead + row * p.extent + chunk * p.size;
        let end = begin + min(p.size, p.extent - chunk * p.size);
        var s = ${start};
        ${eachVector(workgroup)} {
          let x = V($x[p.x_at + b]);
          let v = select(${outside}, ${MAPS[map]}, inside(b, begin, end));
          ${step}
        }
        let total = ${total};
        if (t == 0u) { $out[p.out_at + group] = ${outType}(${accumulate ? joined : "total"}); }
      `,
    };
  },
);

/** Invocations of a workgroup of `columnReduceSource`. */
export const COLUMN_WORKGROUP = 64;

/** `out[o, chunk, i] = op of x[o, chunk * size ..., i]`, one invocation each, in row-major order. */
export const columnReduceSource: (
  op: ReduceOp,
  type: FloatType,
  outType: FloatType,
  accumulate: boolean,
) => KernelSource = memoized(
  (op: ReduceOp, type: FloatType, outType: FloatType, accumulate: boolean): KernelSource => {
    const [start, step, total] =
      op === "sum" ? ["0.0", "s += v;", "s"] : ["LOWEST_KEY", "s = max(s, key_of(v));", "number_of(s)"];
    const before = "f32($out[p.out_at + i])";
    const joined = op === "sum" ? `${before} + total` : `max_or_nan(${before}, total)`;
    return {
      name: `reduce-${op} columns ${type} ${outType}${accumulate ? " add" : ""}`,
      operands: [
        { name: "x", type },
        { name: "out", type: outType, write: true },
      ],
      params: { n: "u32", extent: "u32", inner: "u32", chunks: "u32", size: "u32" },
      workgroup: COLUMN_WORKGROUP,
      declarations: KEYS,
      main: `
        let i = group * ${COLUMN_WORKGROUP}u + t;
        if (i >= p.n) { return; }
        let at = i % p.inner;
        let chunk = (i / p.inner) % p.chunks;
        let outer = i / p.inner / p.chunks;
        let first = chunk * p.size;
        var s = ${start};
        for (var e = first; e < min(p.extent, first + p.size); e++) {
          let v = f32($x[p.x_at + (outer * p.extent + e) * p.inner + at]);
          ${step}
        }
        let total = ${total};
        $out[p.out_at + i] = ${outType}(${accumulate ? joined : "total"});
      `,
    };
  },
);

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
  (op, map, type, outType, wide, accumulate, workgroup, subgroups): KernelSource => {
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
const COLUMN_WORKGROUP = 256;

/** Columns (or vectors of four) of a workgroup: a cache line of each row. The other invocations take other rows. */
export function columnsOfWorkgroup(wide: boolean): number {
  return wide ? 8 : 32;
}

/**
 * `out[o, chunk, i] = op of x[o, chunk * size ..., i]` in row-major order, where i may stand for four neighbours. Every
 * invocation of a column takes its share of the rows, then they join in pairs.
 */
export const columnReduceSource: (
  op: ReduceOp,
  type: FloatType,
  outType: FloatType,
  wide: boolean,
  accumulate: boolean,
) => KernelSource = memoized((op, type, outType, wide, accumulate): KernelSource => {
  const value = rowElement("f32", wide);
  const state = op === "sum" ? value : wide ? "vec4<u32>" : "u32";
  const each = (of: string): string =>
    wide ? [..."xyzw"].map((c) => of.replaceAll("@", `.${c}`)).join(", ") : of.replaceAll("@", "");
  const [start, step, total] =
    op === "sum"
      ? ["0.0", "s + v", "s"]
      : ["LOWEST_KEY", `max(s, ${state}(${each("key_of(v@)")}))`, `${value}(${each("number_of(s@)")})`];
  const joined = op === "sum" ? "before + total" : `${value}(${each("max_or_nan(before@, total@)")})`;
  const columns = columnsOfWorkgroup(wide);
  const lanes = COLUMN_WORKGROUP / columns;
  return {
    name: `reduce-${op} columns ${type}${wide ? "x4" : ""} ${outType}${accumulate ? " add" : ""}`,
    operands: [
      { name: "x", type: rowElement(type, wide) },
      { name: "out", type: rowElement(outType, wide), write: true },
    ],
    params: { n: "u32", extent: "u32", inner: "u32", chunks: "u32", size: "u32" },
    workgroup: COLUMN_WORKGROUP,
    declarations: `${KEYS}
var<workgroup> states: array<${state}, ${COLUMN_WORKGROUP}>;
fn join(a: ${state}, b: ${state}) -> ${state} { return ${op === "sum" ? "a + b" : "max(a, b)"}; }
`,
    main: `
        let i = group * ${columns}u + t % ${columns}u;
        let lane = t / ${columns}u;
        let at = i % p.inner;
        let chunk = (i / p.inner) % p.chunks;
        let outer = i / p.inner / p.chunks;
        let first = chunk * p.size;
        let end = select(0u, min(p.extent, first + p.size), i < p.n);
        var s = ${state}(${start});
        for (var e = first + lane; e < end; e += ${lanes}u) {
          let v = ${value}($x[p.x_at + (outer * p.extent + e) * p.inner + at]);
          s = ${step};
        }
        states[t] = s;
        for (var half = ${lanes / 2}u; half > 0u; half = half / 2u) {
          workgroupBarrier();
          if (lane < half) { states[t] = join(states[t], states[t + half * ${columns}u]); }
        }
        if (lane > 0u || i >= p.n) { return; }
        s = states[t];
        let total = ${total};
        ${accumulate ? `let before = ${value}($out[p.out_at + i]);` : ""}
        $out[p.out_at + i] = ${rowElement(outType, wide)}(${accumulate ? joined : "total"});
      `,
  };
});

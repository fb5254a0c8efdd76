/**
 * What kernels over rows share: vectors that may begin before a row and end behind it, and sums and maxima over the
 * workgroup that owns a row.
 *
 * Rows need not begin at vectors: 50,257 columns are odd. A wide kernel walks the vectors that its row touches and masks
 * the elements of others; it needs only that all operands of rows begin at the same place modulo four (`p.lead`).
 *
 * @module
 */
import type { FloatType } from "../spans.ts";
import type { ElementType, KernelFeature } from "./source.ts";

/** The element type of a row operand. */
export function rowElement(type: FloatType, wide: boolean): ElementType {
  return wide ? `vec4<${type}>` : type;
}

/** The most negative float32, for maxima of nothing: infinity has no literal, and would give NaN in differences. */
const LOWEST = "-3.4028234e38";

/** Aliases and functions over the elements of one vector: `V`, `U`, `W`, `places`, `inside`, `sum_of`, `max_of`. */
export function rowPrelude(wide: boolean): string {
  const shared = `
const LOWEST = ${LOWEST};
fn inside(b: u32, begin: u32, end: u32) -> B { let at = places(b); return (at >= U(begin)) & (at < U(end)); }
`;
  if (!wide) {
    return `
alias V = f32; alias U = u32; alias B = bool; const W = 1u;
fn places(b: u32) -> U { return b; }
fn sum_of(v: V) -> f32 { return v; }
fn max_of(v: V) -> f32 { return v; }
${shared}`;
  }
  return `
alias V = vec4<f32>; alias U = vec4<u32>; alias B = vec4<bool>; const W = 4u;
fn places(b: u32) -> U { return U(4u * b) + U(0u, 1u, 2u, 3u); }
fn sum_of(v: V) -> f32 { return (v.x + v.y) + (v.z + v.w); }
fn max_of(v: V) -> f32 { return max(max(v.x, v.y), max(v.z, v.w)); }
${shared}`;
}

/** Stores a `V` at vector `b` of the row from `begin` to `end`, leaving its neighbours alone. */
export function rowStore(name: string, type: FloatType, wide: boolean, value: string): string {
  if (!wide) return `$${name}[p.${name}_at + b] = ${type}(${value});`;
  return `{
    let whole = vec4<${type}>(${value});
    if (4u * b >= begin && 4u * b + 4u <= end) { $${name}[p.${name}_at + b] = whole; }
    else { for (var j = max(4u * b, begin) - 4u * b; j < min(4u, end - 4u * b); j++) { $${name}[p.${name}_at + b][j] = whole[j]; } }
  }`;
}

/** The loop over the vectors of a row, split among the workgroup. */
export function eachVector(workgroup: number): string {
  return `for (var b = begin / W + t; W * b < end; b += ${workgroup}u)`;
}

/** A pass over the vectors of a row: `body` sees the vector's index `b` and the values that were loaded. */
export type RowPass = (body: string) => string;

/** Rows of more vectors an invocation are loaded again in every pass. */
const MAX_KEPT = 8;

/** Vectors of a row that each invocation keeps in registers: 0 when they are too many. */
export function keptVectors(columns: number, wide: boolean, aligned: boolean, workgroup: number): number {
  const vectors = wide ? Math.ceil(columns / 4) + (aligned ? 0 : 1) : columns;
  const each = Math.ceil(vectors / workgroup);
  return each <= MAX_KEPT ? each : 0;
}

/**
 * The first pass over a row, which evaluates each expression of `load` and names it, and the one for those after it,
 * which find the values in registers.
 */
export function rowPasses(
  workgroup: number,
  kept: number,
  load: Readonly<Record<string, string>>,
): { first: RowPass; again: RowPass } {
  const loads = Object.entries(load).map(([name, value]) => `let ${name} = ${value};`);
  if (kept === 0) {
    const pass: RowPass = (body) => `${eachVector(workgroup)} { ${loads.join(" ")} ${body} }`;
    return { first: pass, again: pass };
  }
  const names = Object.keys(load);
  const each = (text: (k: number) => string): string =>
    Array.from({ length: kept }, (_, k) => {
      const index = `let b = begin / W + t + ${k * workgroup}u;`;
      return `{ ${index} if (W * b < end) { ${text(k)} } }`;
    }).join("\n");
  const perName = (k: number, text: (name: string, register: string) => string): string =>
    names.map((name) => text(name, `${name}_${k}`)).join(" ");
  const registers = Array.from({ length: kept }, (_, k) => perName(k, (_, r) => `var ${r} = V(0);`));
  return {
    first: (body) =>
      `${registers.join(" ")}\n${each((k) => `${loads.join(" ")} ${perName(k, (name, r) => `${r} = ${name};`)} ${body}`)}`,
    again: (body) => each((k) => `${perName(k, (name, r) => `let ${name} = ${r};`)} ${body}`),
  };
}

/** Reductions over a workgroup, with subgroup operations or without. */
export interface WorkgroupReduction {
  readonly features: readonly KernelFeature[];
  readonly declarations: string;
  /** Every invocation gets the sum of all invocations' values. */
  sum(value: string): string;
  /** The same for the maximum. Not-a-number may be lost. */
  max(value: string): string;
  /** The maximum of unsigned numbers. */
  maxKey(value: string): string;
}

/** Reductions over `workgroup` invocations. Each order of additions is fixed, so results repeat to the bit. */
export function workgroupReduction(workgroup: number, subgroups: boolean): WorkgroupReduction {
  const kinds = [
    { name: "sum", type: "f32", combine: "a + b", native: "subgroupAdd" },
    { name: "max", type: "f32", combine: "max(a, b)", native: "subgroupMax" },
    { name: "key", type: "u32", combine: "max(a, b)", native: "subgroupMax" },
  ];
  const functions = kinds.map(({ name, type, combine, native }) => {
    const combined = `fn ${name}_of_two(a: ${type}, b: ${type}) -> ${type} { return ${combine}; }`;
    // The first barrier keeps a reduction before this one from being overwritten while it is read.
    if (!subgroups) {
      return `${combined}
var<workgroup> shared_${name}: array<${type}, ${workgroup}>;
fn workgroup_${name}(value: ${type}, t: u32) -> ${type} {
  workgroupBarrier();
  shared_${name}[t] = value;
  workgroupBarrier();
  for (var half = ${workgroup / 2}u; half > 0u; half = half / 2u) {
    if (t < half) { shared_${name}[t] = ${name}_of_two(shared_${name}[t], shared_${name}[t + half]); }
    workgroupBarrier();
  }
  return shared_${name}[0];
}`;
    }
    return `${combined}
var<workgroup> shared_${name}: array<${type}, ${Math.max(1, workgroup / 4)}>;
fn workgroup_${name}(value: ${type}, lane: u32, subgroup: u32, subgroups: u32) -> ${type} {
  let own = ${native}(value);
  workgroupBarrier();
  if (lane == 0u) { shared_${name}[subgroup] = own; }
  workgroupBarrier();
  var all = shared_${name}[0];
  for (var i = 1u; i < subgroups; i++) { all = ${name}_of_two(all, shared_${name}[i]); }
  return all;
}`;
  });
  const rest = subgroups ? "lane, subgroup, subgroups" : "t";
  return {
    features: subgroups ? ["subgroups"] : [],
    declarations: functions.join("\n"),
    sum: (value) => `workgroup_sum(${value}, ${rest})`,
    max: (value) => `workgroup_max(${value}, ${rest})`,
    maxKey: (value) => `workgroup_key(${value}, ${rest})`,
  };
}

/** Workgroup sizes of row kernels, by columns: about four vectors an invocation. */
export function rowWorkgroup(columns: number, wide: boolean): number {
  const vectors = Math.ceil(columns / (wide ? 4 : 1));
  return Math.min(256, Math.max(32, 2 ** Math.ceil(Math.log2(Math.max(1, vectors / 4)))));
}

/**
 * Elementwise functions of strided operands: one invocation an element of the result, its index taken apart by
 * dimension.
 *
 * @module
 */
import type { BinaryOp } from "../../../core/contracts/kernels.ts";
import { memoized } from "../memo.ts";
import type { FloatType } from "../spans.ts";
import { binaryFunction } from "./elementwise.ts";
import type { KernelSource } from "./source.ts";

/** Invocations of a workgroup. */
export const STRIDED_WORKGROUP = 256;

/** Parameters of `rank` dimensions: sizes of all but the first, and strides of each operand. */
function stridedParams(operands: readonly string[], rank: number): Record<string, "u32"> {
  const params: Record<string, "u32"> = { n: "u32" };
  for (let d = 1; d < rank; d++) params[`size${d}`] = "u32";
  for (const name of operands) for (let d = 0; d < rank; d++) params[`${name}${d}`] = "u32";
  return params;
}

/** Sets `${operand}_index` for each operand from the element index `i`. */
function indices(operands: readonly string[], rank: number): string {
  const lines = ["var rest = i;", ...operands.map((name) => `var ${name}_index = 0u;`)];
  for (let d = rank - 1; d >= 0; d--) {
    lines.push(d > 0 ? `{ let at = rest % p.size${d}; rest = rest / p.size${d};` : "{ let at = rest;");
    lines.push(...operands.map((name) => `${name}_index += at * p.${name}${d};`), "}");
  }
  return lines.join(" ");
}

/** `out = op(a, b)` over strides. */
export const stridedBinarySource: (op: BinaryOp, type: FloatType, rank: number) => KernelSource = memoized(
  (op, type, rank): KernelSource => ({
    name: `binary-${op} ${type} rank ${rank}`,
    operands: [
      { name: "a", type },
      { name: "b", type },
      { name: "out", type, write: true },
    ],
    params: stridedParams(["a", "b"], rank),
    workgroup: STRIDED_WORKGROUP,
    declarations: binaryFunction(op),
    main: `
      let i = group * ${STRIDED_WORKGROUP}u + t;
      if (i >= p.n) { return; }
      ${indices(["a", "b"], rank)}
      $out[p.out_at + i] = ${type}(combine(f32($a[p.a_at + a_index]), f32($b[p.b_at + b_index])));
    `,
  }),
);

/** `out = condition != 0 ? a : b` over strides; a condition has `bytes` bytes, a float's sign does not count. */
export const whereSource: (bytes: number, floating: boolean, type: FloatType, rank: number) => KernelSource =
  memoized(
    (bytes, floating, type, rank): KernelSource => ({
      name: `where ${type} by ${bytes} bytes rank ${rank}`,
      operands: [
        { name: "condition", type: "u32" },
        { name: "a", type },
        { name: "b", type },
        { name: "out", type, write: true },
      ],
      params: { skip: "u32", ...stridedParams(["condition", "a", "b"], rank) },
      workgroup: STRIDED_WORKGROUP,
      declarations: bytes === 8 ? longCondition(floating) : shortCondition(bytes, floating),
      main: `
        let i = group * ${STRIDED_WORKGROUP}u + t;
        if (i >= p.n) { return; }
        ${indices(["condition", "a", "b"], rank)}
        $out[p.out_at + i] = select($b[p.b_at + b_index], $a[p.a_at + a_index], holds(condition_index));
      `,
    }),
  );

/** Elements of one to four bytes, of which `p.skip` lie in the first word before the span. */
function shortCondition(bytes: number, floating: boolean): string {
  const perWord = 4 / bytes;
  const bits = 8 * bytes;
  const mask = 2 ** (floating ? bits - 1 : bits) - 1;
  return `
fn holds(index: u32) -> bool {
  let at = p.skip + index;
  let word = $condition[p.condition_at + at / ${perWord}u];
  return ((word >> (${bits}u * (at % ${perWord}u))) & ${mask}u) != 0u;
}`;
}

function longCondition(floating: boolean): string {
  const mask = floating ? 0x7fffffff : 0xffffffff;
  return `
fn holds(index: u32) -> bool {
  let at = p.condition_at + 2u * index;
  return ($condition[at] | ($condition[at + 1u] & ${mask}u)) != 0u;
}`;
}

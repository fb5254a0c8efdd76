/**
 * Elementwise functions of contiguous operands.
 *
 * @module
 */
import type { BinaryOp, UnaryOp } from "../../../core/contracts/kernels.ts";
import { memoized } from "../memo.ts";
import type { FloatType } from "../spans.ts";
import { mapKernel } from "./map.ts";
import { DERIVATIVE, FUNCTIONS, SLOPES, SPECIAL, UNARY } from "./math.ts";
import type { KernelSource } from "./source.ts";

/** Each function of scalars `a` and `b`, by name. */
const BINARY: Readonly<Record<BinaryOp, string>> = {
  add: "a + b",
  sub: "a - b",
  mul: "a * b",
  div: "a / b",
  pow: "power(a, b)",
  maximum: "max_or_nan(a, b)",
  minimum: "-max_or_nan(-a, -b)",
  equal: "select(0.0, 1.0, a == b)",
  greater: "select(0.0, 1.0, a > b)",
  less: "select(0.0, 1.0, a < b)",
};

/** WGSL leaves powers of negative bases undefined. */
const POWER = `
fn power(a: f32, b: f32) -> f32 {
  if (b == 0.0) { return 1.0; }
  if (a == 0.0) { return select(0.0, 1.0 / abs(a), b < 0.0); }
  let size = pow(abs(a), b);
  if (a > 0.0) { return size; }
  if (b != floor(b)) { return nan(); }
  return select(size, -size, abs(b) < 16777216.0 && (i32(b) & 1) != 0);
}
`;

/** `combine(a, b)` of scalars. */
export function binaryFunction(op: BinaryOp): string {
  return `${SPECIAL}${op === "pow" ? POWER : ""}fn combine(a: f32, b: f32) -> f32 { return ${BINARY[op]}; }`;
}

/** `out = op(x)`. */
export const unarySource: (op: UnaryOp, type: FloatType, wide: boolean) => KernelSource = memoized(
  (op, type, wide) =>
    mapKernel(
      {
        name: `unary-${op}`,
        inputs: ["x"],
        outputs: ["out"],
        declarations: FUNCTIONS,
        body: `let out_new = ${UNARY[op]};`,
      },
      type,
      wide,
    ),
);

/** `out = gradient * op'(x)`. */
export const unaryBackwardSource: (op: UnaryOp, type: FloatType, wide: boolean) => KernelSource = memoized(
  (op, type, wide) =>
    mapKernel(
      {
        name: `unary-backward-${op}`,
        inputs: ["x", "y", "gradient"],
        outputs: ["out"],
        declarations: FUNCTIONS + SLOPES,
        body: `let out_new = gradient * (${DERIVATIVE[op]});`,
      },
      type,
      wide,
    ),
);

/** `out = x * scale + shift`. */
export const affineSource: (type: FloatType, wide: boolean) => KernelSource = memoized((type, wide) =>
  mapKernel(
    {
      name: "affine",
      inputs: ["x"],
      outputs: ["out"],
      params: { scale: "f32", shift: "f32" },
      body: "let out_new = x * p.scale + V(p.shift);",
    },
    type,
    wide,
  ),
);

/** `out = op(a, b)` where both lie as `out` does. */
export const binarySource: (op: BinaryOp, type: FloatType, wide: boolean) => KernelSource = memoized(
  (op, type, wide) =>
    mapKernel(
      {
        name: `binary-${op}`,
        inputs: ["a", "b"],
        outputs: ["out"],
        declarations: binaryFunction(op),
        body: wide
          ? "let out_new = V(combine(a.x, b.x), combine(a.y, b.y), combine(a.z, b.z), combine(a.w, b.w));"
          : "let out_new = combine(a, b);",
      },
      type,
      wide,
    ),
);

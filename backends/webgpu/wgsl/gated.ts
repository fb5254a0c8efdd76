/**
 * Gated units: an activated gate times a value, and both gradients at once.
 *
 * @module
 */
import type { UnaryOp } from "../../../core/contracts/kernels.ts";
import { memoized } from "../memo.ts";
import type { FloatType } from "../spans.ts";
import { mapKernel } from "./map.ts";
import { DERIVATIVE, FUNCTIONS, SLOPES, UNARY } from "./math.ts";
import type { KernelSource } from "./source.ts";

/** `out = op(x) * value`: the gate is `x`, as the functions call it. */
export const gatedSource: (op: UnaryOp, type: FloatType, wide: boolean) => KernelSource = memoized(
  (op, type, wide) =>
    mapKernel(
      {
        name: `gated-${op}`,
        inputs: ["x", "value"],
        outputs: ["out"],
        declarations: FUNCTIONS,
        body: `let out_new = (${UNARY[op]}) * value;`,
      },
      type,
      wide,
    ),
);

/** Gradients of the gate and of the value, as wanted. Operands: gate, value, gradient, then those. */
export const gatedBackwardSource: (
  op: UnaryOp,
  gate: boolean,
  value: boolean,
  type: FloatType,
  wide: boolean,
) => KernelSource = memoized((op, gate, value, type, wide) =>
  mapKernel(
    {
      name: `gated-backward-${op}${gate ? " gate" : ""}${value ? " value" : ""}`,
      inputs: ["x", "value", "gradient"],
      outputs: [...(gate ? ["dgate"] : []), ...(value ? ["dvalue"] : [])],
      declarations: FUNCTIONS + SLOPES,
      body: `
        let y = ${UNARY[op]};
        let dgate_new = gradient * value * (${DERIVATIVE[op]});
        let dvalue_new = gradient * y;`,
    },
    type,
    wide,
  ),
);

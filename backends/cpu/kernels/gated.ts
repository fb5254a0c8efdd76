/**
 * Gated units (Shazeer, "GLU Variants Improve Transformer", 2020) in plain TypeScript.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { Kernels, UnaryOp } from "../../../core/contracts/kernels.ts";
import { DERIVATIVE, UNARY } from "./elementwise.ts";
import { floats, type Heap, requireSame } from "./heap.ts";

/** See `Kernels.gated`. */
export function gated(heap: Heap, op: UnaryOp, gate: Span, x: Span, out: Span): void {
  const kernel = `gated ${op}`;
  requireSame(kernel, [gate, x, out]);
  const gates = floats(heap, kernel, gate);
  const values = floats(heap, kernel, x);
  const target = floats(heap, kernel, out);
  const f = UNARY[op];
  for (let i = 0; i < target.length; i++) target[i] = f(gates[i]!) * values[i]!;
}

/** See `Kernels.gatedBackward`. */
export function gatedBackward(heap: Heap, args: Parameters<Kernels["gatedBackward"]>[0]): void {
  const { op, gate, x, gradient } = args;
  const kernel = `gated ${op} backward`;
  const outputs = [args.dGate, args.dX].filter((span) => span !== undefined);
  requireSame(kernel, [gate, x, gradient, ...outputs]);
  const gates = floats(heap, kernel, gate);
  const values = floats(heap, kernel, x);
  const gradients = floats(heap, kernel, gradient);
  const dGate = args.dGate && floats(heap, kernel, args.dGate);
  const dX = args.dX && floats(heap, kernel, args.dX);
  const [f, slope] = [UNARY[op], DERIVATIVE[op]];
  for (let i = 0; i < gates.length; i++) {
    const [g, value, upstream] = [gates[i]!, values[i]!, gradients[i]!];
    const activated = f(g);
    if (dGate !== undefined) dGate[i] = upstream * value * slope(g, activated);
    if (dX !== undefined) dX[i] = upstream * activated;
  }
}

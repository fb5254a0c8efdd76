/**
 * Gated units and their gradients.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { Kernels, UnaryOp } from "../../../core/contracts/kernels.ts";
import type { Gpu } from "../dispatch.ts";
import { floatType, requireSame } from "../spans.ts";
import { gatedBackwardSource, gatedSource } from "../wgsl/gated.ts";
import { runMap } from "./map.ts";

/** See `Kernels.gated`. */
export function gated(gpu: Gpu, op: UnaryOp, gate: Span, x: Span, out: Span): void {
  const kernel = `gated ${op}`;
  requireSame(kernel, [gate, x, out]);
  const type = floatType(gpu, kernel, x);
  runMap(gpu, (wide) => gatedSource(op, type, wide), [gate, x, out]);
}

/** See `Kernels.gatedBackward`. */
export function gatedBackward(gpu: Gpu, args: Parameters<Kernels["gatedBackward"]>[0]): void {
  const { op, gate, x, gradient, dGate, dX } = args;
  const kernel = `gated ${op} backward`;
  const outputs = [dGate, dX].filter((span) => span !== undefined);
  const spans = [gate, x, gradient, ...outputs];
  requireSame(kernel, spans);
  const type = floatType(gpu, kernel, x);
  if (outputs.length === 0) return;
  runMap(gpu, (wide) => gatedBackwardSource(op, dGate !== undefined, dX !== undefined, type, wide), spans);
}

/**
 * Gated units (Shazeer, "GLU Variants Improve Transformer", 2020) in one kernel, so that the activated gate is never
 * stored: with `silu`, the gate of SwiGLU.
 *
 * @module
 */
import { ShapeError } from "../../contracts/errors.ts";
import type { UnaryOp } from "../../contracts/kernels.ts";
import { sameShape, showShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { gradientSlot } from "./in-place.ts";

/** What a gate may pass through; `geluTanh` is GPT-2's approximation. */
export type GateActivation = Extract<UnaryOp, "silu" | "gelu" | "geluTanh" | "relu" | "sigmoid">;

/** `activation(gate) * x`, of one shape and dtype. @throws ShapeError when they differ. */
export function gated(gate: Tensor, x: Tensor, activation: GateActivation = "silu"): Tensor {
  if (!sameShape(gate.shape, x.shape) || gate.dtype !== x.dtype) {
    const given = [gate, x].map((t) => `${t.dtype} ${showShape(t.shape)}`).join(", ");
    throw new ShapeError(`gated() failed: ${given}, allowed are equal shapes and dtypes`);
  }
  const out = x.device.result(x.shape, x.dtype);
  x.device.backend.kernels.gated(activation, gate.span, x.span, out.span);
  return x.device.record(out, {
    op: `gated ${activation}`,
    inputs: [gate, x],
    saved: [gate, x],
    backward: (gradient, saved, needs, last) => {
      const [held, value] = saved as [Tensor, Tensor];
      const { device } = gradient;
      // In the last walk what was saved ends here, so that its memory serves again.
      const reuse = last && held.exclusive && !held.requiresGrad;
      const slot = (): Tensor => (reuse ? held.alias() : device.allocate(held.shape, gradient.dtype));
      const dGate = needs[0] ? slot() : undefined;
      const dX = needs[1] ? gradientSlot(gradient) : undefined;
      device.backend.kernels.gatedBackward({
        op: activation,
        gate: held.span,
        x: value.span,
        gradient: gradient.span,
        dGate: dGate?.span,
        dX: dX?.span,
      });
      return [dGate, dX];
    },
  });
}

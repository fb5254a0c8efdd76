/**
 * What FSDP1 does around a sharded module's forward, beside what the engine does: it knows the root, casts its inputs
 * and, once, the tensors that modules hold beside their parameters.
 *
 * @module
 */
import { DTYPES, type DType } from "../../core/contracts/dtype.ts";
import { StateError } from "../../core/contracts/errors.ts";
import { castFloating } from "../../core/engine/mixed-precision.ts";
import type { AnyModule, CallWrapper } from "../../core/nn/module.ts";
import { Parameter } from "../../core/nn/parameter.ts";
import type { BackwardListener } from "../../core/tensor/tape.ts";
import { Tensor } from "../../core/tensor/tensor.ts";
import type { FlatParameter } from "./flat-parameter.ts";
import { type Wrapped, wrappedOf } from "./wrapped.ts";

/** Goes around every call of a sharded module. */
export function aroundForward(wrapped: Wrapped): CallWrapper {
  const { module, plan, unit } = wrapped;
  const { paramDtype, bufferDtype, castRootForwardInputs = true } = plan.mixedPrecision;
  let ran = false;
  const listener = backwardListener(wrapped, unit?.flat);
  return async (args, next) => {
    if (wrapped.phase === "summoned") {
      throw new StateError(
        `Calling ${module.constructor.name} failed: summonFullParams() is under way in it, call it when that has ended`,
      );
    }
    const around = wrapped.phase;
    wrapped.phase = "forward";
    try {
      if (!ran && bufferDtype !== undefined) castBuffers(module, bufferDtype);
      ran = true;
      const casting = wrapped.isRoot && castRootForwardInputs && paramDtype !== undefined;
      return await next(casting ? (castFloating(args, paramDtype) as readonly unknown[]) : args);
    } finally {
      wrapped.phase = around;
      if (unit?.engine.shards.materialized === true) {
        const { backwardListeners } = unit.engine.device;
        // Always behind the engine's own, which a call of the root may add: gradients are reduced before they move.
        backwardListeners.delete(listener);
        backwardListeners.add(listener);
      }
    }
  };
}

/** Knows when a backward pass is under way, after which gradients go to the flat parameter, if modules list that. */
function backwardListener(wrapped: Wrapped, flat: FlatParameter | undefined): BackwardListener {
  const end = (): void => {
    wrapped.phase = "idle";
  };
  return {
    backwardBegin: () => {
      wrapped.phase = "backward";
    },
    backwardEnd: async () => {
      await flat?.takeGrads();
      end();
    },
    backwardFailed: end,
  };
}

/** Casts the floating tensors that `module` and modules below it, up to the next unit, hold as properties. */
function castBuffers(module: AnyModule, dtype: DType): void {
  for (const [name, value] of Object.entries(module)) {
    if (!(value instanceof Tensor) || value instanceof Parameter) continue;
    if (!DTYPES[value.dtype].floating || value.dtype === dtype) continue;
    const cast = value.device.allocate(value.shape, dtype);
    value.device.backend.kernels.cast(value.span, cast.span);
    Object.defineProperty(module, name, { value: cast });
  }
  for (const [, child] of module.namedChildren())
    if (wrappedOf(child) === undefined) castBuffers(child, dtype);
}

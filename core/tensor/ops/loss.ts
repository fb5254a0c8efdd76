/**
 * Losses, as in `torch.nn.functional`.
 *
 * @module
 */
import { accumulatorDType } from "../../contracts/dtype.ts";
import { ShapeError } from "../../contracts/errors.ts";
import { numelOf, sameShape, showShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { spread } from "./broadcast.ts";
import { mul, sub } from "./elementwise.ts";
import { mean, sum } from "./reduce.ts";
import { countValid, scalar } from "./valid-targets.ts";

/** How a loss per row becomes one number; `"none"` keeps them apart. */
export type LossReduction = "mean" | "sum" | "none";

/** Options of the losses. */
export interface LossOptions {
  /** `"mean"` by default. */
  readonly reduction?: LossReduction;
}

/**
 * Cross entropy of `logits` [..., classes] against integer `targets` [...]. A target of -100 is ignored: it gives loss 0
 * and no gradient, and `"mean"` divides by the number of the others (NaN when there are none, as in PyTorch).
 *
 * @throws ShapeError when the shapes do not fit or targets are not int32 or int64.
 */
export function crossEntropy(logits: Tensor, targets: Tensor, options: LossOptions = {}): Tensor {
  if (
    logits.shape.length === 0 ||
    !sameShape(logits.shape.slice(0, -1), targets.shape) ||
    (targets.dtype !== "int32" && targets.dtype !== "int64")
  ) {
    throw new ShapeError(
      `crossEntropy() failed: logits ${showShape(logits.shape)} with ${targets.dtype} targets ${showShape(targets.shape)}, allowed are [..., classes] with int32 or int64 [...]`,
    );
  }
  const { device } = logits;
  const dtype = accumulatorDType(logits.dtype);
  const { kernels } = device.backend;
  const reduction = options.reduction ?? "mean";
  const columns = logits.shape.at(-1)!;
  const rows = numelOf(targets.shape);
  // The scope has them until they are disposed: a target that is no class makes the kernel throw.
  const losses = device.result(targets.shape, dtype);
  const logSumExp = device.result([rows], dtype);
  kernels.crossEntropy(logits.span, targets.span, losses.span, logSumExp.span, rows, columns);

  // The number of targets that count stays on the device: reading it would stall the step.
  const count = reduction === "mean" ? countValid(targets, device, dtype) : undefined;
  let out = losses;
  if (reduction !== "none") {
    out = device.result([], dtype);
    kernels.reduce("sum", losses.span, out.span, 1, rows, 1);
    losses.dispose();
    if (count !== undefined)
      kernels.binary("div", { span: out.span, strides: [1] }, scalar(count), out.span, [1]);
  }
  device.record(out, {
    op: "crossEntropy",
    inputs: [logits],
    saved: [logits, targets, logSumExp, count],
    backward: (gradient, [input, wanted, sums, divisor], _, last) => {
      const perRow = reduction === "none" ? gradient : spread(gradient, [], [rows]);
      if (divisor !== undefined) {
        kernels.binary("div", { span: perRow.span, strides: [1] }, scalar(divisor), perRow.span, [rows]);
      }
      // Logits are often the largest tensor of a step: their gradient takes their place when nobody needs them again.
      const reuse = last && input!.exclusive && !input!.requiresGrad;
      const dLogits = reuse ? input!.alias() : gradient.device.allocate(input!.shape, input!.dtype);
      kernels.crossEntropyBackward(
        input!.span,
        wanted!.span,
        sums!.span,
        perRow.span,
        dLogits.span,
        rows,
        columns,
      );
      if (perRow !== gradient) perRow.dispose();
      return [dLogits];
    },
  });
  logSumExp.dispose();
  count?.dispose();
  return out;
}

/** Squared difference of two tensors of one shape. @throws ShapeError when their shapes differ. */
export function mseLoss(input: Tensor, target: Tensor, options: LossOptions = {}): Tensor {
  if (!sameShape(input.shape, target.shape)) {
    throw new ShapeError(
      `mseLoss() failed: input ${showShape(input.shape)} and target ${showShape(target.shape)}, allowed are equal shapes`,
    );
  }
  const difference = sub(input, target);
  const squares = mul(difference, difference);
  if (options.reduction === "none") return squares;
  return options.reduction === "sum" ? sum(squares) : mean(squares);
}

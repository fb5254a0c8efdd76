/**
 * Optimizer updates: one pass over parameter, gradient and state.
 *
 * @module
 */
import { memoized } from "../memo.ts";
import type { FloatType } from "../spans.ts";
import { mapKernel } from "./map.ts";
import type { KernelSource } from "./source.ts";

/** AdamW. Operands: parameter, gradient, both averages, and the three that are written again. */
export const adamwSource: (type: FloatType, wide: boolean) => KernelSource = memoized((type, wide) =>
  mapKernel(
    {
      name: "adamw",
      inputs: ["x", "g", "m", "s"],
      outputs: ["parameter", "average", "square"],
      params: {
        decay: "f32",
        first: "f32",
        beta2: "f32",
        second: "f32",
        step_size: "f32",
        correction: "f32",
        eps: "f32",
      },
      body: `
          let average_new = m + p.first * (g - m);
          let square_new = p.beta2 * s + p.second * g * g;
          let parameter_new = x * p.decay - p.step_size * average_new / (sqrt(square_new) / p.correction + V(p.eps));
        `,
    },
    type,
    wide,
  ),
);

/** SGD without momentum. Operands: parameter, gradient, parameter again. */
export const sgdSource: (type: FloatType, wide: boolean) => KernelSource = memoized((type, wide) =>
  mapKernel(
    {
      name: "sgd",
      inputs: ["x", "g"],
      outputs: ["parameter"],
      params: { lr: "f32", decay: "f32" },
      body: "let parameter_new = x - p.lr * (g + p.decay * x);",
    },
    type,
    wide,
  ),
);

/** SGD with momentum. Operands: parameter, gradient, velocity, then parameter and velocity again. */
export const momentumSource: (
  type: FloatType,
  nesterov: boolean,
  first: boolean,
  wide: boolean,
) => KernelSource = memoized((type, nesterov, first, wide) =>
  mapKernel(
    {
      name: `sgd-momentum${nesterov ? "-nesterov" : ""}${first ? "-first" : ""}`,
      inputs: ["x", "g", "before"],
      outputs: ["parameter", "velocity"],
      params: { lr: "f32", decay: "f32", momentum: "f32", share: "f32" },
      body: `
        let d = g + p.decay * x;
        let velocity_new = ${first ? "d" : "p.momentum * before + p.share * d"};
        let parameter_new = x - p.lr * (${nesterov ? "d + p.momentum * velocity_new" : "velocity_new"});
      `,
    },
    type,
    wide,
  ),
);

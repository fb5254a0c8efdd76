/**
 * Cross entropy over rows of logits: the loss in one read, the gradient in one read and one write.
 *
 * @module
 */
import { memoized } from "../memo.ts";
import type { FloatType } from "../spans.ts";
import { SPECIAL } from "./math.ts";
import { eachVector, rowElement, rowPrelude, rowStore, workgroupReduction } from "./rows.ts";
import { onlineSum, ROW, ROW_PARAMS } from "./softmax.ts";
import type { KernelSource } from "./source.ts";

/**
 * The row's `picked` column, whether it is `ignored` (-100), and whether it is a column at all. Targets that are not cannot be
 * refused from here: they give NaN.
 */
function targetOf(long: boolean): string {
  const low = long ? "$targets[p.targets_at + 2u * row]" : "$targets[p.targets_at + row]";
  const high = long
    ? "$targets[p.targets_at + 2u * row + 1u]"
    : "select(0u, 0xffffffffu, picked >= 0x80000000u)";
  return `
    let picked = ${low};
    let high = ${high};
    let ignored = picked == 0xffffff9cu && high == 0xffffffffu;
    let valid = high == 0u && picked < p.columns;
  `;
}

/** See `Kernels.crossEntropy`. Operands: x, targets, losses, sums. */
export const crossEntropySource: (
  type: FloatType,
  lossType: FloatType,
  wide: boolean,
  long: boolean,
  workgroup: number,
  subgroups: boolean,
) => KernelSource = memoized((type, lossType, wide, long, workgroup, subgroups): KernelSource => {
  const reduction = workgroupReduction(workgroup, subgroups);
  return {
    name: `cross-entropy ${type}${wide ? "x4" : ""} ${lossType}${long ? " long" : ""} ${workgroup}`,
    operands: [
      { name: "x", type: rowElement(type, wide) },
      { name: "targets", type: "u32" },
      { name: "losses", type: lossType, write: true },
      { name: "sums", type: lossType, write: true },
    ],
    params: ROW_PARAMS,
    workgroup,
    features: reduction.features,
    declarations: SPECIAL + rowPrelude(wide) + reduction.declarations,
    main: `
        ${ROW}
        ${onlineSum(reduction, workgroup)}
        if (t == 0u) {
          ${targetOf(long)}
          let sum = top + log(total);
          let at = begin + select(0u, picked, valid);
          let chosen = f32(${wide ? "$x[p.x_at + at / 4u][at % 4u]" : "$x[p.x_at + at]"});
          $sums[p.sums_at + row] = ${lossType}(sum);
          $losses[p.losses_at + row] = ${lossType}(select(select(nan(), sum - chosen, valid), 0.0, ignored));
        }
      `,
  };
});

/** See `Kernels.crossEntropyBackward`. Operands: x, out, targets, sums, gradient. */
export const crossEntropyBackwardSource: (
  type: FloatType,
  lossType: FloatType,
  wide: boolean,
  long: boolean,
  workgroup: number,
) => KernelSource = memoized(
  (type, lossType, wide, long, workgroup): KernelSource => ({
    name: `cross-entropy-backward ${type}${wide ? "x4" : ""} ${lossType}${long ? " long" : ""} ${workgroup}`,
    operands: [
      { name: "x", type: rowElement(type, wide) },
      { name: "out", type: rowElement(type, wide), write: true },
      { name: "targets", type: "u32" },
      { name: "sums", type: lossType },
      { name: "gradient", type: lossType },
    ],
    params: ROW_PARAMS,
    workgroup,
    declarations: SPECIAL + rowPrelude(wide),
    main: `
      ${ROW}
      ${targetOf(long)}
      let sum = f32($sums[p.sums_at + row]);
      let factor = select(nan(), f32($gradient[p.gradient_at + row]), valid);
      ${eachVector(workgroup)} {
        let slope = exp(V($x[p.x_at + b]) - V(sum)) - select(V(0), V(1), places(b) == U(begin + picked));
        ${rowStore("out", type, wide, "select(slope * V(factor), V(0), ignored)")}
      }
    `,
  }),
);

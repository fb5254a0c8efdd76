/**
 * Softmax over rows: one workgroup a row, its maximum and sum found in one read ("online", Milakov and Gimelshein 2018).
 *
 * @module
 */
import { memoized } from "../memo.ts";
import type { FloatType } from "../spans.ts";
import {
  eachVector,
  rowElement,
  rowPrelude,
  rowStore,
  type WorkgroupReduction,
  workgroupReduction,
} from "./rows.ts";
import type { KernelSource } from "./source.ts";

/** Finds `top` and `total`, the row's maximum and its sum of exponentials from there. Needs `begin` and `end`. */
export function onlineSum(reduction: WorkgroupReduction, workgroup: number): string {
  return `
    var m = LOWEST; var s = 0.0;
    ${eachVector(workgroup)} {
      let mask = inside(b, begin, end);
      let v = select(V(LOWEST), V($x[p.x_at + b]), mask);
      let higher = max(m, max_of(v));
      s = s * exp(m - higher) + sum_of(select(V(0), exp(v - V(higher)), mask));
      m = higher;
    }
    let top = ${reduction.max("m")};
    let total = ${reduction.sum("s * exp(m - top)")};
  `;
}

/** The row of this workgroup. */
export const ROW = `
  let row = group;
  if (row >= p.rows) { return; }
  let begin = p.lead + row * p.columns;
  let end = begin + p.columns;
`;

/** Parameters of kernels over rows. */
export const ROW_PARAMS = { rows: "u32", columns: "u32", lead: "u32" } as const;

type SoftmaxSource = (
  type: FloatType,
  wide: boolean,
  log: boolean,
  workgroup: number,
  subgroups: boolean,
) => KernelSource;

/** See `Kernels.softmax`. */
export const softmaxSource: SoftmaxSource = memoized(
  (type, wide, log, workgroup, subgroups): KernelSource => {
    const reduction = workgroupReduction(workgroup, subgroups);
    const result = log ? "v - V(top + log(total))" : "exp(v - V(top)) / V(total)";
    return {
      name: `softmax ${type}${wide ? "x4" : ""}${log ? " log" : ""} ${workgroup}`,
      operands: [
        { name: "x", type: rowElement(type, wide) },
        { name: "out", type: rowElement(type, wide), write: true },
      ],
      params: ROW_PARAMS,
      workgroup,
      features: reduction.features,
      declarations: rowPrelude(wide) + reduction.declarations,
      main: `
        ${ROW}
        ${onlineSum(reduction, workgroup)}
        ${eachVector(workgroup)} {
          let v = V($x[p.x_at + b]);
          ${rowStore("out", type, wide, result)}
        }
      `,
    };
  },
);

/** See `Kernels.softmaxBackward`. */
export const softmaxBackwardSource: SoftmaxSource = memoized(
  (type, wide, log, workgroup, subgroups): KernelSource => {
    const reduction = workgroupReduction(workgroup, subgroups);
    const term = log ? "g" : "g * y";
    const result = log ? "g - exp(y) * V(total)" : "y * (g - V(total))";
    return {
      name: `softmax-backward ${type}${wide ? "x4" : ""}${log ? " log" : ""} ${workgroup}`,
      operands: [
        { name: "y", type: rowElement(type, wide) },
        { name: "gradient", type: rowElement(type, wide) },
        { name: "out", type: rowElement(type, wide), write: true },
      ],
      params: ROW_PARAMS,
      workgroup,
      features: reduction.features,
      declarations: rowPrelude(wide) + reduction.declarations,
      main: `
        ${ROW}
        var s = 0.0;
        ${eachVector(workgroup)} {
          let y = V($y[p.y_at + b]);
          let g = V($gradient[p.gradient_at + b]);
          s += sum_of(select(V(0), ${term}, inside(b, begin, end)));
        }
        let total = ${reduction.sum("s")};
        ${eachVector(workgroup)} {
          let y = V($y[p.y_at + b]);
          let g = V($gradient[p.gradient_at + b]);
          ${rowStore("out", type, wide, result)}
        }
      `,
    };
  },
);

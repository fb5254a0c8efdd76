/**
 * Root-mean-square normalisation over rows: one workgroup a row; weight gradients in partial sums over blocks of rows.
 *
 * @module
 */
import { memoized } from "../memo.ts";
import type { FloatType } from "../spans.ts";
import { SCALE_WORKGROUP, type ScaleAccess, scaleElement, scaleLoader } from "./norm.ts";
import { rowElement, rowPasses, rowPrelude, rowStore, workgroupReduction } from "./rows.ts";
import { ROW, ROW_PARAMS } from "./softmax.ts";
import type { KernelSource } from "./source.ts";

type RowSource = (
  type: FloatType,
  statType: FloatType,
  wide: boolean,
  access: ScaleAccess,
  workgroup: number,
  kept: number,
  subgroups: boolean,
) => KernelSource;

/** See `Kernels.rmsNorm`. Operands: x, out, weight, rstd. */
export const rmsNormSource: RowSource = memoized(
  (
    type: FloatType,
    statType: FloatType,
    wide: boolean,
    access: ScaleAccess,
    workgroup: number,
    kept: number,
    subgroups: boolean,
  ): KernelSource => {
    const reduction = workgroupReduction(workgroup, subgroups);
    const { first, again } = rowPasses(workgroup, kept, { x: "V($x[p.x_at + b])" });
    return {
      name: `rms-norm ${type}${wide ? "x4" : ""} ${statType} ${access} ${workgroup} ${kept}`,
      operands: [
        { name: "x", type: rowElement(type, wide) },
        { name: "out", type: rowElement(type, wide), write: true },
        { name: "weight", type: scaleElement(type, access) },
        { name: "rstd", type: statType, write: true },
      ],
      params: { ...ROW_PARAMS, eps: "f32" },
      workgroup,
      features: reduction.features,
      declarations: [rowPrelude(wide), reduction.declarations, scaleLoader("weight", wide, access)].join(
        "\n",
      ),
      main: `
        ${ROW}
        var squares = 0.0;
        ${first("squares += sum_of(select(V(0), x * x, inside(b, begin, end)));")}
        let rstd = 1.0 / sqrt(${reduction.sum("squares")} / f32(p.columns) + p.eps);
        if (t == 0u) { $rstd[p.rstd_at + row] = ${statType}(rstd); }
        ${again(rowStore("out", type, wide, "x * V(rstd) * load_weight(b, begin, p.columns)"))}
      `,
    };
  },
);

/** Gradient of the input. Operands: x, gradient, out, weight, rstd. */
export const rmsNormInputSource: RowSource = memoized(
  (
    type: FloatType,
    statType: FloatType,
    wide: boolean,
    access: ScaleAccess,
    workgroup: number,
    kept: number,
    subgroups: boolean,
  ): KernelSource => {
    const reduction = workgroupReduction(workgroup, subgroups);
    const { first, again } = rowPasses(workgroup, kept, {
      g: "V($gradient[p.gradient_at + b]) * load_weight(b, begin, p.columns)",
      normal: "V($x[p.x_at + b]) * V(rstd)",
    });
    return {
      name: `rms-norm-backward ${type}${wide ? "x4" : ""} ${statType} ${access} ${workgroup} ${kept}`,
      operands: [
        { name: "x", type: rowElement(type, wide) },
        { name: "gradient", type: rowElement(type, wide) },
        { name: "out", type: rowElement(type, wide), write: true },
        { name: "weight", type: scaleElement(type, access) },
        { name: "rstd", type: statType },
      ],
      params: ROW_PARAMS,
      workgroup,
      features: reduction.features,
      declarations: [rowPrelude(wide), reduction.declarations, scaleLoader("weight", wide, access)].join(
        "\n",
      ),
      main: `
        ${ROW}
        let rstd = f32($rstd[p.rstd_at + row]);
        var d = 0.0;
        ${first("d += sum_of(select(V(0), g * normal, inside(b, begin, end)));")}
        let projection = ${reduction.sum("d")} / f32(p.columns);
        ${again(rowStore("out", type, wide, "V(rstd) * (g - normal * V(projection))"))}
      `,
    };
  },
);

/**
 * Sums over a block of rows of `gradient * x * rstd`, by column (or four of them): partial sums [blocks, columns].
 * Operands: x, gradient, rstd, weights. The grid is [columns / workgroup, blocks].
 */
export const rmsNormScaleSource: (type: FloatType, statType: FloatType, wide: boolean) => KernelSource =
  memoized((type: FloatType, statType: FloatType, wide: boolean): KernelSource => {
    const value = rowElement("f32", wide);
    return {
      name: `rms-norm-scales ${type}${wide ? "x4" : ""} ${statType}`,
      operands: [
        { name: "x", type: rowElement(type, wide) },
        { name: "gradient", type: rowElement(type, wide) },
        { name: "rstd", type: statType },
        { name: "weights", type: value, write: true },
      ],
      params: { rows: "u32", vectors: "u32", height: "u32" },
      workgroup: SCALE_WORKGROUP,
      main: `
        let column = w.x * ${SCALE_WORKGROUP}u + t;
        if (column >= p.vectors) { return; }
        var weight = ${value}(0);
        let first = w.y * p.height;
        for (var row = first; row < min(p.rows, first + p.height); row++) {
          let at = row * p.vectors + column;
          weight += ${value}($gradient[p.gradient_at + at]) * ${value}($x[p.x_at + at]) * f32($rstd[p.rstd_at + row]);
        }
        $weights[p.weights_at + w.y * p.vectors + column] = weight;
      `,
    };
  });

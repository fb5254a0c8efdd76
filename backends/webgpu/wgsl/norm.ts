/**
 * Layer normalisation over rows: one workgroup a row; weight and bias gradients in partial sums over blocks of rows.
 *
 * @module
 */
import { memoized } from "../memo.ts";
import type { FloatType } from "../spans.ts";
import { rowElement, rowPasses, rowPrelude, rowStore, workgroupReduction } from "./rows.ts";
import { ROW, ROW_PARAMS } from "./softmax.ts";
import type { KernelSource, Operand } from "./source.ts";

/** How weight and bias lie: `"scalar"` works for any columns, `"vector"` when rows and they begin at vectors. */
export type ScaleAccess = "scalar" | "vector";

/** Element type of weight or bias. */
export function scaleElement(type: FloatType, access: ScaleAccess): Operand["type"] {
  return access === "vector" ? `vec4<${type}>` : type;
}

/** `load_name(b, begin, columns)`: the values of weight or bias at vector `b` of a row. */
export function scaleLoader(name: string, wide: boolean, access: ScaleAccess): string {
  const head = `fn load_${name}(b: u32, begin: u32, columns: u32) -> V {`;
  if (access === "vector") return `${head} return V($${name}[p.${name}_at + b - begin / W]); }`;
  const clamp = "let c = min(places(b) - U(begin), U(columns - 1u));";
  const at = (c: string): string => `f32($${name}[p.${name}_at + ${c}])`;
  const value = wide ? `V(${at("c.x")}, ${at("c.y")}, ${at("c.z")}, ${at("c.w")})` : at("c");
  return `${head} ${clamp} return ${value}; }`;
}

/** See `Kernels.layerNorm`. Operands: x, out, weight, bias if any, mean, rstd. */
export const layerNormSource: (
  type: FloatType,
  statType: FloatType,
  wide: boolean,
  access: ScaleAccess,
  biased: boolean,
  workgroup: number,
  kept: number,
  subgroups: boolean,
) => KernelSource = memoized(
  (
    type: FloatType,
    statType: FloatType,
    wide: boolean,
    access: ScaleAccess,
    biased: boolean,
    workgroup: number,
    kept: number,
    subgroups: boolean,
  ): KernelSource => {
    const reduction = workgroupReduction(workgroup, subgroups);
    const { first, again } = rowPasses(workgroup, kept, { x: "V($x[p.x_at + b])" });
    const scales = biased ? ["weight", "bias"] : ["weight"];
    const scaled = "(x - V(mean)) * V(rstd) * load_weight(b, begin, p.columns)";
    return {
      name: `layer-norm ${type}${wide ? "x4" : ""} ${statType} ${access}${biased ? " biased" : ""} ${workgroup} ${kept}`,
      operands: [
        { name: "x", type: rowElement(type, wide) },
        { name: "out", type: rowElement(type, wide), write: true },
        ...scales.map((name) => ({ name, type: scaleElement(type, access) })),
        { name: "mean", type: statType, write: true },
        { name: "rstd", type: statType, write: true },
      ],
      params: { ...ROW_PARAMS, eps: "f32" },
      workgroup,
      features: reduction.features,
      declarations: [
        rowPrelude(wide),
        reduction.declarations,
        ...scales.map((name) => scaleLoader(name, wide, access)),
      ].join("\n"),
      main: `
        ${ROW}
        var s = 0.0;
        ${first("s += sum_of(select(V(0), x, inside(b, begin, end)));")}
        let mean = ${reduction.sum("s")} / f32(p.columns);
        var squares = 0.0;
        ${again("let d = select(V(0), x - V(mean), inside(b, begin, end)); squares += sum_of(d * d);")}
        let rstd = 1.0 / sqrt(${reduction.sum("squares")} / f32(p.columns) + p.eps);
        if (t == 0u) {
          $mean[p.mean_at + row] = ${statType}(mean);
          $rstd[p.rstd_at + row] = ${statType}(rstd);
        }
        ${again(rowStore("out", type, wide, biased ? `${scaled} + load_bias(b, begin, p.columns)` : scaled))}
      `,
    };
  },
);

/** Gradient of the input. Operands: x, gradient, out, weight, mean, rstd. */
export const layerNormInputSource: (
  type: FloatType,
  statType: FloatType,
  wide: boolean,
  access: ScaleAccess,
  workgroup: number,
  kept: number,
  subgroups: boolean,
) => KernelSource = memoized(
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
      normal: "(V($x[p.x_at + b]) - V(mean)) * V(rstd)",
    });
    return {
      name: `layer-norm-backward ${type}${wide ? "x4" : ""} ${statType} ${access} ${workgroup}`,
      operands: [
        { name: "x", type: rowElement(type, wide) },
        { name: "gradient", type: rowElement(type, wide) },
        { name: "out", type: rowElement(type, wide), write: true },
        { name: "weight", type: scaleElement(type, access) },
        { name: "mean", type: statType },
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
        let mean = f32($mean[p.mean_at + row]);
        let rstd = f32($rstd[p.rstd_at + row]);
        var s = 0.0;
        var d = 0.0;
        ${first(`
          let mask = inside(b, begin, end);
          s += sum_of(select(V(0), g, mask));
          d += sum_of(select(V(0), g * normal, mask));
        `)}
        let average = ${reduction.sum("s")} / f32(p.columns);
        let projection = ${reduction.sum("d")} / f32(p.columns);
        ${again(rowStore("out", type, wide, "V(rstd) * (g - V(average) - normal * V(projection))"))}
      `,
    };
  },
);

/** Invocations of a workgroup of `layerNormScaleSource`. */
export const SCALE_WORKGROUP = 64;

/**
 * Sums over a block of rows of `gradient * normal` and of `gradient`, by column (or four of them): partial sums
 * [blocks, columns]. Operands: x, gradient, mean, rstd, weights, biases. The grid is [columns / workgroup, blocks].
 */
export const layerNormScaleSource: (type: FloatType, statType: FloatType, wide: boolean) => KernelSource =
  memoized((type: FloatType, statType: FloatType, wide: boolean): KernelSource => {
    const value = rowElement("f32", wide);
    return {
      name: `layer-norm-scales ${type}${wide ? "x4" : ""} ${statType}`,
      operands: [
        { name: "x", type: rowElement(type, wide) },
        { name: "gradient", type: rowElement(type, wide) },
        { name: "mean", type: statType },
        { name: "rstd", type: statType },
        { name: "weights", type: value, write: true },
        { name: "biases", type: value, write: true },
      ],
      params: { rows: "u32", vectors: "u32", height: "u32" },
      workgroup: SCALE_WORKGROUP,
      main: `
        let column = w.x * ${SCALE_WORKGROUP}u + t;
        if (column >= p.vectors) { return; }
        var weight = ${value}(0);
        var bias = ${value}(0);
        let first = w.y * p.height;
        for (var row = first; row < min(p.rows, first + p.height); row++) {
          let at = row * p.vectors + column;
          let g = ${value}($gradient[p.gradient_at + at]);
          let normal = (${value}($x[p.x_at + at]) - f32($mean[p.mean_at + row])) * f32($rstd[p.rstd_at + row]);
          weight += g * normal;
          bias += g;
        }
        $weights[p.weights_at + w.y * p.vectors + column] = weight;
        $biases[p.biases_at + w.y * p.vectors + column] = bias;
      `,
    };
  });

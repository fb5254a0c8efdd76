/**
 * Normalisation over rows: one workgroup a row; gradients of weight and bias in partial sums over blocks of rows. Layer
 * normalisation takes the mean away and may add a bias; root-mean-square normalisation does neither.
 *
 * @module
 */
import { memoized } from "../memo.ts";
import type { FloatType } from "../spans.ts";
import { rowElement, rowPasses, rowPrelude, rowStore, workgroupReduction } from "./rows.ts";
import { ROW, ROW_PARAMS } from "./softmax.ts";
import type { KernelSource, Operand } from "./source.ts";

/** Which normalisation: its kernels' family. */
export type Norm = "layer-norm" | "rms-norm";

/** How weight and bias lie: `"scalar"` works for any columns, `"vector"` when rows and they begin at vectors. */
export type ScaleAccess = "scalar" | "vector";

/** Element type of weight or bias. */
function scaleElement(type: FloatType, access: ScaleAccess): Operand["type"] {
  return access === "vector" ? `vec4<${type}>` : type;
}

/** `load_name(b, begin, columns)`: the values of weight or bias at vector `b` of a row. */
function scaleLoader(name: string, wide: boolean, access: ScaleAccess): string {
  const head = `fn load_${name}(b: u32, begin: u32, columns: u32) -> V {`;
  if (access === "vector") return `${head} return V($${name}[p.${name}_at + b - begin / W]); }`;
  const clamp = "let c = min(places(b) - U(begin), U(columns - 1u));";
  const at = (c: string): string => `f32($${name}[p.${name}_at + ${c}])`;
  const value = wide ? `V(${at("c.x")}, ${at("c.y")}, ${at("c.z")}, ${at("c.w")})` : at("c");
  return `${head} ${clamp} return ${value}; }`;
}

/** Statistics of a row in the order of operands. */
function statistics(norm: Norm): readonly string[] {
  return norm === "layer-norm" ? ["mean", "rstd"] : ["rstd"];
}

/** See `Kernels.layerNorm` and `Kernels.rmsNorm`. Operands: x, out, weight, bias if any, mean (of layers), rstd. */
export const normSource: (
  norm: Norm,
  type: FloatType,
  statType: FloatType,
  wide: boolean,
  access: ScaleAccess,
  biased: boolean,
  workgroup: number,
  kept: number,
  subgroups: boolean,
) => KernelSource = memoized(
  (norm, type, statType, wide, access, biased, workgroup, kept, subgroups): KernelSource => {
    const reduction = workgroupReduction(workgroup, subgroups);
    const { first, again } = rowPasses(workgroup, kept, { x: "V($x[p.x_at + b])" });
    const scales = biased ? ["weight", "bias"] : ["weight"];
    const statNames = statistics(norm);
    const centred = norm === "layer-norm";
    const mean = `
        var s = 0.0;
        ${first("s += sum_of(select(V(0), x, inside(b, begin, end)));")}
        let mean = ${reduction.sum("s")} / f32(p.columns);`;
    const squares = centred
      ? again("let d = select(V(0), x - V(mean), inside(b, begin, end)); squares += sum_of(d * d);")
      : first("squares += sum_of(select(V(0), x * x, inside(b, begin, end)));");
    const scaled = `${centred ? "(x - V(mean))" : "x"} * V(rstd) * load_weight(b, begin, p.columns)`;
    return {
      name: `${norm} ${type}${wide ? "x4" : ""} ${statType} ${access}${biased ? " biased" : ""} ${workgroup} ${kept}`,
      operands: [
        { name: "x", type: rowElement(type, wide) },
        { name: "out", type: rowElement(type, wide), write: true },
        ...scales.map((name) => ({ name, type: scaleElement(type, access) })),
        ...statNames.map((name) => ({ name, type: statType, write: true })),
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
        ${ROW}${centred ? mean : ""}
        var squares = 0.0;
        ${squares}
        let rstd = 1.0 / sqrt(${reduction.sum("squares")} / f32(p.columns) + p.eps);
        if (t == 0u) {
          ${statNames.map((name) => `$${name}[p.${name}_at + row] = ${statType}(${name});`).join("\n          ")}
        }
        ${again(rowStore("out", type, wide, biased ? `${scaled} + load_bias(b, begin, p.columns)` : scaled))}
      `,
    };
  },
);

/** Gradient of the input. Operands: x, gradient, out, weight, mean (of layers), rstd. */
export const normInputSource: (
  norm: Norm,
  type: FloatType,
  statType: FloatType,
  wide: boolean,
  access: ScaleAccess,
  workgroup: number,
  kept: number,
  subgroups: boolean,
) => KernelSource = memoized(
  (norm, type, statType, wide, access, workgroup, kept, subgroups): KernelSource => {
    const reduction = workgroupReduction(workgroup, subgroups);
    const centred = norm === "layer-norm";
    const value = "V($x[p.x_at + b])";
    const { first, again } = rowPasses(workgroup, kept, {
      g: "V($gradient[p.gradient_at + b]) * load_weight(b, begin, p.columns)",
      normal: `${centred ? `(${value} - V(mean))` : value} * V(rstd)`,
    });
    const statNames = statistics(norm);
    return {
      name: `${norm}-backward ${type}${wide ? "x4" : ""} ${statType} ${access} ${workgroup} ${kept}`,
      operands: [
        { name: "x", type: rowElement(type, wide) },
        { name: "gradient", type: rowElement(type, wide) },
        { name: "out", type: rowElement(type, wide), write: true },
        { name: "weight", type: scaleElement(type, access) },
        ...statNames.map((name) => ({ name, type: statType })),
      ],
      params: ROW_PARAMS,
      workgroup,
      features: reduction.features,
      declarations: [rowPrelude(wide), reduction.declarations, scaleLoader("weight", wide, access)].join(
        "\n",
      ),
      main: `
        ${ROW}
        ${statNames.map((name) => `let ${name} = f32($${name}[p.${name}_at + row]);`).join("\n        ")}
        ${centred ? "var s = 0.0;" : ""}
        var d = 0.0;
        ${first(`
          let mask = inside(b, begin, end);
          ${centred ? "s += sum_of(select(V(0), g, mask));" : ""}
          d += sum_of(select(V(0), g * normal, mask));
        `)}
        ${centred ? `let average = ${reduction.sum("s")} / f32(p.columns);` : ""}
        let projection = ${reduction.sum("d")} / f32(p.columns);
        ${again(rowStore("out", type, wide, `V(rstd) * (g - ${centred ? "V(average) - " : ""}normal * V(projection))`))}
      `,
    };
  },
);

/** Invocations of a workgroup of `normScaleSource`. */
export const SCALE_WORKGROUP = 64;

/**
 * Sums over a block of rows of `gradient * normal` and, for layers, of `gradient`, by column (or four of them): partial
 * sums [blocks, columns]. Operands: x, gradient, mean (of layers), rstd, weights, biases (of layers). The grid is
 * [columns / workgroup, blocks].
 */
export const normScaleSource: (
  norm: Norm,
  type: FloatType,
  statType: FloatType,
  wide: boolean,
) => KernelSource = memoized((norm, type, statType, wide): KernelSource => {
  const value = rowElement("f32", wide);
  const sums = norm === "layer-norm" ? ["weight", "bias"] : ["weight"];
  const x = `${value}($x[p.x_at + at])`;
  const rstd = "f32($rstd[p.rstd_at + row])";
  const add =
    norm === "layer-norm"
      ? `let normal = (${x} - f32($mean[p.mean_at + row])) * ${rstd};
          weight += g * normal;
          bias += g;`
      : `weight += g * ${x} * ${rstd};`;
  // The name of a sum's partial results.
  const partial = (sum: string): string => (sum === "bias" ? "biases" : "weights");
  return {
    name: `${norm}-scales ${type}${wide ? "x4" : ""} ${statType}`,
    operands: [
      { name: "x", type: rowElement(type, wide) },
      { name: "gradient", type: rowElement(type, wide) },
      ...statistics(norm).map((name) => ({ name, type: statType })),
      ...sums.map((sum) => ({ name: partial(sum), type: value, write: true })),
    ],
    params: { rows: "u32", vectors: "u32", height: "u32" },
    workgroup: SCALE_WORKGROUP,
    main: `
        let column = w.x * ${SCALE_WORKGROUP}u + t;
        if (column >= p.vectors) { return; }
        ${sums.map((sum) => `var ${sum} = ${value}(0);`).join("\n        ")}
        let first = w.y * p.height;
        for (var row = first; row < min(p.rows, first + p.height); row++) {
          let at = row * p.vectors + column;
          let g = ${value}($gradient[p.gradient_at + at]);
          ${add}
        }
        ${sums.map((sum) => `$${partial(sum)}[p.${partial(sum)}_at + w.y * p.vectors + column] = ${sum};`).join("\n        ")}
      `,
  };
});

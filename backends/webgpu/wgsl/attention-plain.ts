/**
 * Attention with one thread a row: no workgroup memory and no barriers. It is the plain twin of the tiled kernels, serves
 * adapters without subgroups, and is the faster one where workgroups are simulated (adapters that are a CPU).
 *
 * @module
 */
import {
  type AttentionVariant,
  attentionFunctions,
  attentionName,
  attentionOperands,
  attentionParams,
  attentionPrologue,
} from "./attention-common.ts";
import type { KernelSource } from "./source.ts";

/** Rows of a workgroup, one a thread. */
export const PLAIN_ROWS = 64;

/** Index of the first element of a row. */
const at = (name: string, row: string, head: string, headDim: number): string =>
  `p.${name}_at + batch * p.${name}Batch + ${row} * p.${name}Row + ${head} * ${headDim}u`;

/** Forward: one thread a query, with the running maximum and sum of online softmax. */
export function attentionPlain(variant: AttentionVariant): KernelSource {
  const { heads, keyHeads, headDim, element, stats } = variant;
  const each = (body: string): string => `for (var d = 0u; d < ${headDim}u; d++) { ${body} }`;
  return {
    name: `attention plain ${attentionName({ ...variant, vector: true })}`,
    operands: attentionOperands(variant, 1, {
      query: "read",
      key: "read",
      value: "read",
      out: "write",
      lse: "lse write",
    }),
    params: attentionParams("query", "key", "value", "out"),
    workgroup: PLAIN_ROWS,
    declarations: attentionFunctions(variant),
    main: `
  ${attentionPrologue(variant, "query", PLAIN_ROWS)}
  let row = rowBegin + t;
  if (row >= p.queryLength) { return; }
  let keyHead = head * ${keyHeads}u / ${heads}u;
  let first = ${at("query", "row", "head", headDim)};
  var q: array<f32, ${headDim}>;
  var sum: array<f32, ${headDim}>;
  ${each("q[d] = f32($query[first + d]) * p.scale * LOG2E;")}
  var peak = LOWEST;
  var total = 0.0;
  let end = visible(row);
  for (var s = 0u; s < end; s++) {
    let k = ${at("key", "s", "keyHead", headDim)};
    let v = ${at("value", "s", "keyHead", headDim)};
    var score = 0.0;
    ${each("score += q[d] * f32($key[k + d]);")}
    let next = max(peak, score);
    let decay = exp2(peak - next);
    let weight = exp2(score - next);
    peak = next;
    total = total * decay + weight;
    ${each("sum[d] = sum[d] * decay + weight * f32($value[v + d]);")}
  }
  var factor = 0.0;
  if (total > 0.0) { factor = 1.0 / total; }
  let to = ${at("out", "row", "head", headDim)};
  ${each(`$out[to + d] = ${element}(sum[d] * factor);`)}
  $lse[p.lse_at + plane * p.queryLength + row] = ${stats}(logSum(peak, total));`,
  };
}

/** Backward for queries: one thread a query. */
export function attentionPlainQuery(variant: AttentionVariant): KernelSource {
  const { heads, keyHeads, headDim, element } = variant;
  const each = (body: string): string => `for (var d = 0u; d < ${headDim}u; d++) { ${body} }`;
  return {
    name: `attention plain-query ${attentionName({ ...variant, vector: true })}`,
    operands: attentionOperands(variant, 1, {
      query: "read",
      key: "read",
      value: "read",
      gradient: "read",
      dQuery: "write",
      lse: "lse",
      delta: "delta",
    }),
    params: attentionParams("query", "key", "value", "gradient", "dQuery"),
    workgroup: PLAIN_ROWS,
    declarations: attentionFunctions(variant),
    main: `
  ${attentionPrologue(variant, "query", PLAIN_ROWS)}
  let row = rowBegin + t;
  if (row >= p.queryLength) { return; }
  let keyHead = head * ${keyHeads}u / ${heads}u;
  let firstQ = ${at("query", "row", "head", headDim)};
  let firstG = ${at("gradient", "row", "head", headDim)};
  var q: array<f32, ${headDim}>;
  var g: array<f32, ${headDim}>;
  var sum: array<f32, ${headDim}>;
  ${each("q[d] = f32($query[firstQ + d]); g[d] = f32($gradient[firstG + d]);")}
  let stat = plane * p.queryLength + row;
  let lse = f32($lse[p.lse_at + stat]);
  let delta = $delta[p.delta_at + stat];
  let end = visible(row);
  for (var s = 0u; s < end; s++) {
    let k = ${at("key", "s", "keyHead", headDim)};
    let v = ${at("value", "s", "keyHead", headDim)};
    var score = 0.0;
    var change = 0.0;
    ${each("score += q[d] * f32($key[k + d]); change += g[d] * f32($value[v + d]);")}
    let weight = exp(score * p.scale - lse) * (change - delta) * p.scale;
    ${each("sum[d] += weight * f32($key[k + d]);")}
  }
  let to = ${at("dQuery", "row", "head", headDim)};
  ${each(`$dQuery[to + d] = ${element}(sum[d]);`)}`,
  };
}

/** Backward for keys and values: one thread a key, over the queries of all heads that share it. */
export function attentionPlainKey(variant: AttentionVariant): KernelSource {
  const { heads, keyHeads, headDim, element } = variant;
  const group = heads / keyHeads;
  const each = (body: string): string => `for (var d = 0u; d < ${headDim}u; d++) { ${body} }`;
  return {
    name: `attention plain-key ${attentionName({ ...variant, vector: true })}`,
    operands: attentionOperands(variant, 1, {
      query: "read",
      key: "read",
      value: "read",
      gradient: "read",
      dKey: "write",
      dValue: "write",
      lse: "lse",
      delta: "delta",
    }),
    params: attentionParams("query", "key", "value", "gradient", "dKey", "dValue"),
    workgroup: PLAIN_ROWS,
    declarations: attentionFunctions(variant),
    main: `
  ${attentionPrologue(variant, "key", PLAIN_ROWS)}
  let row = rowBegin + t;
  if (row >= p.keyLength) { return; }
  let firstK = ${at("key", "row", "head", headDim)};
  let firstV = ${at("value", "row", "head", headDim)};
  var k: array<f32, ${headDim}>;
  var v: array<f32, ${headDim}>;
  var sumK: array<f32, ${headDim}>;
  var sumV: array<f32, ${headDim}>;
  ${each("k[d] = f32($key[firstK + d]); v[d] = f32($value[firstV + d]);")}
  for (var queryHead = head * ${group}u; queryHead < (head + 1u) * ${group}u; queryHead++) {
    for (var s = firstQuery(row); s < p.queryLength; s++) {
      let q = ${at("query", "s", "queryHead", headDim)};
      let g = ${at("gradient", "s", "queryHead", headDim)};
      let stat = (batch * ${heads}u + queryHead) * p.queryLength + s;
      var score = 0.0;
      var change = 0.0;
      ${each("score += k[d] * f32($query[q + d]); change += v[d] * f32($gradient[g + d]);")}
      let weight = exp(score * p.scale - f32($lse[p.lse_at + stat]));
      let slope = weight * (change - $delta[p.delta_at + stat]) * p.scale;
      ${each("sumK[d] += slope * f32($query[q + d]); sumV[d] += weight * f32($gradient[g + d]);")}
    }
  }
  let toK = ${at("dKey", "row", "head", headDim)};
  let toV = ${at("dValue", "row", "head", headDim)};
  ${each(`$dKey[toK + d] = ${element}(sumK[d]); $dValue[toV + d] = ${element}(sumV[d]);`)}`,
  };
}

/** `delta`: for each query the product of its output and its gradient, which every backward kernel needs. */
export function attentionDelta(variant: AttentionVariant): KernelSource {
  const { headDim, vector, element } = variant;
  const word = vector ? 4 : 1;
  const index = (name: string): string => `(batch * p.${name}Batch + row * p.${name}Row + head * ${headDim}u)`;
  const product = vector
    ? "sum += dot(vec4<f32>($out[x + d]), vec4<f32>($gradient[y + d]));"
    : "sum += f32($out[x + d]) * f32($gradient[y + d]);";
  return {
    name: `attention delta ${attentionName(variant)}`,
    operands: attentionOperands({ ...variant, element }, word, {
      out: "read",
      gradient: "read",
      delta: "delta write",
    }),
    params: attentionParams("out", "gradient"),
    workgroup: PLAIN_ROWS,
    main: `
  ${attentionPrologue({ ...variant, causal: false }, "query", PLAIN_ROWS)}
  let row = rowBegin + t;
  if (row >= p.queryLength) { return; }
  let x = p.out_at + ${index("out")} / ${word}u;
  let y = p.gradient_at + ${index("gradient")} / ${word}u;
  var sum = 0.0;
  for (var d = 0u; d < ${headDim / word}u; d++) { ${product} }
  $delta[p.delta_at + plane * p.queryLength + row] = sum;`,
  };
}

/**
 * Attention with one thread a row: no workgroup memory and no barriers. It is the plain twin of the tiled kernels, serves
 * adapters without subgroups, and is the faster one where workgroups are simulated (adapters that are a CPU). One kernel
 * serves every shape, so that little is compiled.
 *
 * @module
 */
import type { FloatType } from "../spans.ts";
import {
  attentionFunctions,
  attentionOperands,
  attentionParams,
  attentionPrologue,
  backwardSignature,
  forwardSignature,
  type Owner,
} from "./attention-common.ts";
import type { KernelSource } from "./source.ts";

/** Rows of a workgroup, one a thread. */
export const PLAIN_ROWS = 64;
/** Largest head dimension. */
export const PLAIN_DEPTH = 256;

/** The kernel of a name and signature: `main` sees the `row` of its thread. */
function plainKernel(
  name: string,
  owner: Owner,
  { operands, params }: Pick<KernelSource, "operands" | "params">,
  main: string,
): KernelSource {
  return {
    name,
    operands,
    params: { ...params, headDim: "u32", causal: "u32" },
    workgroup: PLAIN_ROWS,
    declarations: attentionFunctions("p.causal != 0u"),
    main: `${ownRow(owner)}${main}`,
  };
}

const ownRow = (owner: Owner): string => `
  ${attentionPrologue(owner, PLAIN_ROWS)}
  let row = rowBegin + t;
  if (row >= p.${owner}Length) { return; }
`;

const each = (body: string): string => `for (var d = 0u; d < p.headDim; d++) { ${body} }`;
const array = (...names: readonly string[]): string =>
  names.map((name) => `var ${name}: array<f32, ${PLAIN_DEPTH}>;`).join(" ");
/** Index of the first element of a row. */
const at = (name: string, row: string, head: string): string =>
  `p.${name}_at + batch * p.${name}Batch + ${row} * p.${name}Row + ${head} * p.headDim`;

/** Forward: one thread a query, with the running maximum and sum of online softmax. */
export function attentionPlain(element: FloatType, stats: FloatType): KernelSource {
  return plainKernel(
    `attention plain ${element} ${stats}`,
    "query",
    forwardSignature(element, stats),
    `  let keyHead = head * p.keyHeads / p.heads;
  let first = ${at("query", "row", "head")};
  ${array("q", "sum")}
  ${each("q[d] = f32($query[first + d]) * p.scale * LOG2E; sum[d] = 0.0;")}
  var peak = LOWEST;
  var total = 0.0;
  let end = visible(row);
  for (var s = 0u; s < end; s++) {
    let k = ${at("key", "s", "keyHead")};
    let v = ${at("value", "s", "keyHead")};
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
  let to = ${at("out", "row", "head")};
  ${each(`$out[to + d] = ${element}(sum[d] * factor);`)}
  $lse[p.lse_at + plane * p.queryLength + row] = ${stats}(logSum(peak, total));`,
  );
}

/** Backward for queries: one thread a query. */
export function attentionPlainQuery(element: FloatType, stats: FloatType): KernelSource {
  return plainKernel(
    `attention plain-query ${element} ${stats}`,
    "query",
    backwardSignature(element, stats, "query"),
    `  let keyHead = head * p.keyHeads / p.heads;
  let firstQ = ${at("query", "row", "head")};
  let firstG = ${at("gradient", "row", "head")};
  ${array("q", "g", "sum")}
  ${each("q[d] = f32($query[firstQ + d]); g[d] = f32($gradient[firstG + d]); sum[d] = 0.0;")}
  let stat = plane * p.queryLength + row;
  let lse = f32($lse[p.lse_at + stat]);
  let delta = $delta[p.delta_at + stat];
  let end = visible(row);
  for (var s = 0u; s < end; s++) {
    let k = ${at("key", "s", "keyHead")};
    let v = ${at("value", "s", "keyHead")};
    var score = 0.0;
    var change = 0.0;
    ${each("score += q[d] * f32($key[k + d]); change += g[d] * f32($value[v + d]);")}
    let weight = exp(score * p.scale - lse) * (change - delta) * p.scale;
    ${each("sum[d] += weight * f32($key[k + d]);")}
  }
  let to = ${at("dQuery", "row", "head")};
  ${each(`$dQuery[to + d] = ${element}(sum[d]);`)}`,
  );
}

/** Backward for keys and values: one thread a key, over the queries of all heads that share it. */
export function attentionPlainKey(element: FloatType, stats: FloatType): KernelSource {
  return plainKernel(
    `attention plain-key ${element} ${stats}`,
    "key",
    backwardSignature(element, stats, "key"),
    `  let sharing = p.heads / p.keyHeads;
  let firstK = ${at("key", "row", "head")};
  let firstV = ${at("value", "row", "head")};
  ${array("k", "v", "sumK", "sumV")}
  ${each("k[d] = f32($key[firstK + d]); v[d] = f32($value[firstV + d]); sumK[d] = 0.0; sumV[d] = 0.0;")}
  for (var queryHead = head * sharing; queryHead < (head + 1u) * sharing; queryHead++) {
    for (var s = firstQuery(row); s < p.queryLength; s++) {
      let q = ${at("query", "s", "queryHead")};
      let g = ${at("gradient", "s", "queryHead")};
      let stat = (batch * p.heads + queryHead) * p.queryLength + s;
      var score = 0.0;
      var change = 0.0;
      ${each("score += k[d] * f32($query[q + d]); change += v[d] * f32($gradient[g + d]);")}
      let weight = exp(score * p.scale - f32($lse[p.lse_at + stat]));
      let slope = weight * (change - $delta[p.delta_at + stat]) * p.scale;
      ${each("sumK[d] += slope * f32($query[q + d]); sumV[d] += weight * f32($gradient[g + d]);")}
    }
  }
  let toK = ${at("dKey", "row", "head")};
  let toV = ${at("dValue", "row", "head")};
  ${each(`$dKey[toK + d] = ${element}(sumK[d]); $dValue[toV + d] = ${element}(sumV[d]);`)}`,
  );
}

/** `delta`: for each query the product of its output and its gradient, which every backward kernel needs. */
export function attentionDelta(element: FloatType, vector: boolean): KernelSource {
  const word = vector ? 4 : 1;
  const first = (name: string): string =>
    `p.${name}_at + (batch * p.${name}Batch + row * p.${name}Row + head * p.headDim) / ${word}u`;
  const product = vector
    ? "sum += dot(vec4<f32>($out[x + d]), vec4<f32>($gradient[y + d]));"
    : "sum += f32($out[x + d]) * f32($gradient[y + d]);";
  return {
    name: `attention delta ${element}${vector ? "" : " scalar"}`,
    operands: attentionOperands(vector ? `vec4<${element}>` : element, "f32", {
      out: "read",
      gradient: "read",
      delta: "delta write",
    }),
    params: { ...attentionParams("out", "gradient"), headDim: "u32" },
    workgroup: PLAIN_ROWS,
    main: `${ownRow("query")}  let x = ${first("out")};
  let y = ${first("gradient")};
  var sum = 0.0;
  for (var d = 0u; d < p.headDim / ${word}u; d++) { ${product} }
  $delta[p.delta_at + plane * p.queryLength + row] = sum;`,
  };
}

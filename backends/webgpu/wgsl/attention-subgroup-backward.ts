/**
 * Attention on subgroup matrices, backward: the walk of `attention-backward.ts` (which names x and y), four
 * subgroups to a workgroup, 16 owned rows to each. Gradients add up in subgroup matrices over the whole walk.
 *
 * @module
 */
import { backwardSides, ownedStarts, statisticsAt, walkOthers } from "./attention-backward.ts";
import {
  type AttentionVariant,
  attentionFunctions,
  attentionName,
  attentionPrologue,
  backwardSignature,
  gradientsOf,
  type Owner,
} from "./attention-common.ts";
import {
  chunksOf,
  loadEight,
  loadOwned,
  loadWeights,
  MATRIX_KERNEL,
  matrixTile,
  matrixWords,
  OWNED_ROWS,
  PACK,
  scores,
  stageRows,
  storeEight,
  weigh,
} from "./attention-subgroup.ts";
import { range } from "./range.ts";
import type { KernelSource } from "./source.ts";
import { MATRIX, ZERO } from "./subgroup-matrix.ts";

/** The kernel for a variant and the rows that it owns. */
export function attentionMatrixBackward(variant: AttentionVariant, owner: Owner): KernelSource {
  const { headDim } = variant;
  const tile = matrixTile(headDim);
  const { depth, block, rowStride, scoreStride, weightStride } = tile;
  const ofQuery = owner === "query";
  const { x1, x2, y1, y2, xLength, yLength } = backwardSides(owner);
  const y2At = block * rowStride;
  const scoresAt = 2 * block * rowStride;
  // Owned rows are staged once, where the blocks and scores come later.
  const size = Math.max(scoresAt + OWNED_ROWS * scoreStride, OWNED_ROWS * rowStride);
  const others = { rows: block, begin: "begin", length: yLength } as const;
  const columns = range(depth / MATRIX);
  const results = gradientsOf(owner);
  const sums = ofQuery ? ["first"] : ["first", "second"];
  const chunk = (i: number): string => `(half + ${2 * i}u)`;
  const parts = chunksOf(block).flatMap((i) => [0, 1].map((part) => ({ i, part, name: `${i}_${part}` })));
  const read = (i: number, part: number): string =>
    `bitcast<vec4<f32>>(tile[strip + row * ${scoreStride}u + 2u * ${chunk(i)} + ${part}u])`;
  const weights = parts.map(({ i, part, name }) => {
    const first = `begin + 8u * ${chunk(i)} + ${4 * part}u`;
    const others = `(vec4<u32>(${first}) + vec4<u32>(0u, 1u, 2u, 3u))`;
    const at = `2u * ${chunk(i)} + ${part}u`;
    const [seen, lse, delta] = ofQuery
      ? [`${others} < vec4<u32>(limit)`, "vec4<f32>(lse)", "vec4<f32>(delta)"]
      : [`vec4<u32>(own) < sees[${at}]`, `lses[${at}]`, `deltas[${at}]`];
    return `s${name} = select(vec4<f32>(), exp2(s${name} * (p.scale * LOG2E) - ${lse}), ${seen});
      let g${name} = s${name} * (${read(i, part)} - ${delta});`;
  });
  const loop = (begin: string, end: string): string => `
  for (var begin = ${begin}; begin < ${end}; begin += ${block}u) {
    workgroupBarrier();
    ${stageRows(tile, { name: y1, to: 0, ...others }, { name: y2, to: y2At, ...others })}
    ${
      ofQuery
        ? ""
        : `if (t < ${block}u) {
      let query = begin + t;
      var lse = 0.0; var delta = 0.0; var limit = 0u;
      if (query < p.queryLength) {
        let stat = ${statisticsAt("query")};
        lse = f32($lse[p.lse_at + stat]) * LOG2E;
        delta = $delta[p.delta_at + stat];
        limit = visible(query);
      }
      lses[t >> 2u][t & 3u] = lse; deltas[t >> 2u][t & 3u] = delta; sees[t >> 2u][t & 3u] = limit;
    }`
    }
    workgroupBarrier();
    ${scores(tile, "x", 0)}
    workgroupBarrier();
    ${parts.map(({ i, part, name }) => `var s${name} = ${read(i, part)};`).join("\n    ")}
    workgroupBarrier();
    ${scores(tile, "z", y2At)}
    workgroupBarrier();
    {
      ${weights.join("\n      ")}
      workgroupBarrier();
      ${chunksOf(block)
        .map((i) => {
          const to = `strip + row * ${weightStride}u + ${chunk(i)}`;
          const other = `tile[${to} + ${MATRIX * weightStride}u] = pack(s${i}_0, s${i}_1);`;
          return `tile[${to}] = pack(g${i}_0, g${i}_1); ${ofQuery ? "" : other}`;
        })
        .join("\n      ")}
    }
    workgroupBarrier();
    {
      ${loadWeights(tile, "w", "strip")}
      ${columns.map((j) => weigh(tile, "w", 0, j, `first${j}`)).join("\n      ")}
    }
    ${
      ofQuery
        ? ""
        : `{
      ${loadWeights(tile, "w", `strip + ${MATRIX * weightStride}u`)}
      ${columns.map((j) => weigh(tile, "w", y2At, j, `second${j}`)).join("\n      ")}
    }`
    }
  }`;
  const owned = (name: string, to: string): string => `
  workgroupBarrier();
  ${stageRows(tile, { name, rows: OWNED_ROWS, begin: "rowBegin", length: xLength, to: 0 })}
  workgroupBarrier();
  ${loadOwned(tile, to, 0)}`;
  // Results leave through the score strips, in turns of their width.
  const width = Math.min(depth, block);
  const store = (name: string, sum: string, factor: string): string =>
    range(Math.ceil(depth / width))
      .map((turn) => {
        const wide = Math.min(width, depth - turn * width);
        return `workgroupBarrier();
  ${range(wide / MATRIX)
    .map(
      (j) =>
        `subgroupMatrixStore<row_major>(&tile, strip + ${4 * j}u, ${sum}${(turn * width) / MATRIX + j}, ${scoreStride}u);`,
    )
    .join(" ")}
  workgroupBarrier();
  if (own < ${xLength}) {
    let rowStart = batch * p.${name}Batch + own * p.${name}Row + head * ${headDim}u;
    ${chunksOf(wide)
      .map(
        (i) =>
          `store_${name}(rowStart, ${turn * width}u + 8u * ${chunk(i)}, ${read(i, 0)}${factor}, ${read(i, 1)}${factor});`,
      )
      .join(" ")}
  }`;
      })
      .join("\n  ");
  const statistics = `let limit = visible(own);
  var lse = 0.0;
  var delta = 0.0;
  if (own < p.queryLength) {
    let stat = ${statisticsAt("own")};
    lse = f32($lse[p.lse_at + stat]) * LOG2E;
    delta = $delta[p.delta_at + stat];
  }`;
  return {
    name: `attention matrix-${owner} ${attentionName(variant)}`,
    ...backwardSignature(matrixWords(variant), variant.stats, owner),
    ...MATRIX_KERNEL,
    declarations: `
var<workgroup> tile: array<vec4<u32>, ${size}>;
${ofQuery ? "" : `var<workgroup> lses: array<vec4<f32>, ${block / 4}>;\nvar<workgroup> deltas: array<vec4<f32>, ${block / 4}>;\nvar<workgroup> sees: array<vec4<u32>, ${block / 4}>;`}
${attentionFunctions(String(variant.causal))}
${PACK}
${["query", "key", "value", "gradient"].map((name) => loadEight(variant, name)).join("\n")}
${results.map((name) => storeEight(variant, name)).join("\n")}`,
    main: `
  ${attentionPrologue(owner, OWNED_ROWS)}
  let strip = ${scoresAt}u + subgroup * ${MATRIX * scoreStride}u;
  let row = lane / 2u;
  let half = lane % 2u;
  let own = rowBegin + subgroup * ${MATRIX}u + row;
  ${ownedStarts(owner, headDim)}
  ${owned(x1, "x")}
  ${owned(x2, "z")}
  ${sums.map((sum) => columns.map((j) => `var ${sum}${j} = ${ZERO};`).join(" ")).join("\n  ")}
  ${walkOthers(owner, { headDim, rows: OWNED_ROWS, block, statistics, loop })}
  ${results.map((name, n) => store(name, sums[n]!, n === 0 ? " * p.scale" : "")).join("\n  ")}`,
  };
}

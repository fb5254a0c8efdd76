/**
 * Attention on subgroup matrices, backward: the same two passes as in `attention-tile-backward.ts` (which names x and y),
 * four subgroups to a workgroup, 16 owned rows to each. Gradients add up in subgroup matrices over the whole walk.
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
  type Owner,
} from "./attention-common.ts";
import {
  chunksOf,
  LANES,
  loadEight,
  loadOwned,
  loadWeights,
  MATRIX,
  matrixTile,
  OWNED_ROWS,
  PACK,
  range,
  SUBGROUPS,
  scores,
  stageRows,
  storeEight,
  weigh,
  ZERO,
} from "./attention-subgroup.ts";
import type { KernelSource } from "./source.ts";

/** The kernel for a variant and the rows that it owns. */
export function attentionMatrixBackward(variant: AttentionVariant, owner: Owner): KernelSource {
  const { headDim } = variant;
  const tile = matrixTile(headDim);
  const { depth, block, rowStride, scoreStride, weightStride } = tile;
  const ofQuery = owner === "query";
  const [x1, x2, y1, y2] = ofQuery
    ? ["query", "gradient", "key", "value"]
    : ["key", "value", "query", "gradient"];
  const [xLength, yLength] = ofQuery ? ["p.queryLength", "p.keyLength"] : ["p.keyLength", "p.queryLength"];
  const y2At = block * rowStride;
  const scoresAt = 2 * block * rowStride;
  // Owned rows are staged once, where the blocks and scores come later.
  const size = Math.max(scoresAt + OWNED_ROWS * scoreStride, OWNED_ROWS * rowStride);
  const others = { rows: block, begin: "begin", length: yLength! } as const;
  const columns = range(depth / MATRIX);
  const results = ofQuery ? ["dQuery"] : ["dKey", "dValue"];
  const sums = ofQuery ? ["first"] : ["first", "second"];
  const chunk = (i: number): string => `(half + ${2 * i}u)`;
  const parts = chunksOf(block).flatMap((i) => [0, 1].map((part) => ({ i, part, name: `${i}_${part}` })));
  const read = (i: number, part: number): string =>
    `bitcast<vec4<f32>>(tile[strip + row * ${scoreStride}u + 2u * ${chunk(i)} + ${part}u])`;
  const start = (name: string, head: string): string =>
    `let ${name}Start = batch * p.${name}Batch + ${head} * ${headDim}u;`;
  const statistics = (query: string): string => `(batch * p.heads + queryHead) * p.queryLength + ${query}`;
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
    ${stageRows(tile, { name: y1!, to: 0, ...others }, { name: y2!, to: y2At, ...others })}
    ${
      ofQuery
        ? ""
        : `if (t < ${block}u) {
      let query = begin + t;
      var lse = 0.0; var delta = 0.0; var limit = 0u;
      if (query < p.queryLength) {
        let stat = ${statistics("query")};
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
  ${stageRows(tile, { name, rows: OWNED_ROWS, begin: "rowBegin", length: xLength!, to: 0 })}
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
  return {
    name: `attention matrix-${owner} ${attentionName(variant)}`,
    operands: attentionOperands(variant.vector ? "vec4<u32>" : "f16", variant.stats, {
      query: "read",
      key: "read",
      value: "read",
      gradient: "read",
      ...Object.fromEntries(results.map((name) => [name, "write"] as const)),
      lse: "lse",
      delta: "delta",
    }),
    params: attentionParams("query", "key", "value", "gradient", ...results),
    workgroup: LANES * SUBGROUPS,
    features: ["f16", "subgroups", "subgroup-matrix"],
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
  ${ofQuery ? `let queryHead = head; let keyHead = head * p.keyHeads / p.heads;` : "let keyHead = head;"}
  ${start("key", "keyHead")} ${start("value", "keyHead")}
  ${ofQuery ? `${start("query", "queryHead")} ${start("gradient", "queryHead")}` : ""}
  ${owned(x1!, "x")}
  ${owned(x2!, "z")}
  ${sums.map((sum) => columns.map((j) => `var ${sum}${j} = ${ZERO};`).join(" ")).join("\n  ")}
  ${
    ofQuery
      ? `let limit = visible(own);
  var lse = 0.0;
  var delta = 0.0;
  if (own < p.queryLength) {
    let stat = ${statistics("own")};
    lse = f32($lse[p.lse_at + stat]) * LOG2E;
    delta = $delta[p.delta_at + stat];
  }
  let end = visible(min(rowBegin + ${OWNED_ROWS - 1}u, p.queryLength - 1u));
  ${loop("0u", "end")}`
      : `let sharing = p.heads / p.keyHeads;
  let firstBlock = firstQuery(rowBegin) / ${block}u * ${block}u;
  for (var queryHead = head * sharing; queryHead < (head + 1u) * sharing; queryHead++) {
  ${start("query", "queryHead")} ${start("gradient", "queryHead")}
  ${loop("firstBlock", "p.queryLength")}
  }`
  }
  ${results.map((name, n) => store(name, sums[n]!, n === 0 ? " * p.scale" : "")).join("\n  ")}`,
  };
}

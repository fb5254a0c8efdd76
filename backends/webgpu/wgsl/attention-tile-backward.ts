/**
 * Attention on plain arithmetic units, backward: the tiles of `attention-tile.ts` in the walk of `attention-backward.ts`,
 * which names x and y.
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
  type AttentionTile,
  attentionTile,
  loadFour,
  rowOf,
  type Staged,
  scoreTile,
  stageRows,
  stageWeights,
  storeFour,
  TILE_COLUMNS,
  tileWords,
  weighRows,
} from "./attention-tile.ts";
import { range } from "./range.ts";
import type { KernelSource } from "./source.ts";

/**
 * The kernel for a variant and the rows that it owns.
 *
 * @param resident owned rows stay in workgroup memory; otherwise they are staged again for every block, one operand after
 * the other, which takes less of it
 */
export function attentionTiledBackward(
  variant: AttentionVariant,
  tile: AttentionTile,
  owner: Owner,
  resident: boolean,
): KernelSource {
  const { headDim } = variant;
  const { rows, quads, slices } = tile;
  const own = quads.flatMap((q) => range(4).map((r) => q * 4 + r));
  const ofQuery = owner === "query";
  const { x1, x2, y1, y2, xLength, yLength } = backwardSides(owner);
  const { x1At, x2At, y1At, y2At, rowsAt, size } = arena(tile, resident);
  const ownRows = (name: string, to: number): Staged => ({
    name,
    rows,
    begin: "rowBegin",
    length: xLength,
    to,
    transposed: true,
  });
  const block = (name: string, to: number, transposed: boolean): Staged => ({
    name,
    rows: TILE_COLUMNS,
    begin: "begin",
    length: yLength,
    to,
    transposed,
  });
  const stage = (...operands: readonly Staged[]): string => stageRows(tile, ...operands);
  const weights = own.map((i) =>
    ofQuery
      ? `{
        let seen = others < vec4<u32>(visible(${rowOf(tile, i)}));
        s${i} = select(vec4<f32>(), exp2(s${i} * (p.scale * LOG2E) - vec4<f32>(lse${i})), seen);
        g${i} = s${i} * (g${i} - vec4<f32>(delta${i}));
      }`
      : `{
        let seen = (vec4<u32>(${rowOf(tile, i)}) < sees) & (others < vec4<u32>(p.queryLength));
        s${i} = select(vec4<f32>(), exp2(s${i} * (p.scale * LOG2E) - lse), seen);
        g${i} = s${i} * (g${i} - delta);
      }`,
  );
  const columnStatistics = `var lse = vec4<f32>(); var delta = vec4<f32>(); var sees = vec4<u32>();
    for (var j = 0u; j < 4u; j++) {
      if (others[j] < p.queryLength) {
        let stat = ${statisticsAt("others[j]")};
        lse[j] = f32($lse[p.lse_at + stat]) * LOG2E;
        delta[j] = $delta[p.delta_at + stat];
        sees[j] = visible(others[j]);
      }
    }`;
  const rowStatistics = own
    .map(
      (i) => `var lse${i} = 0.0; var delta${i} = 0.0;
  if (${rowOf(tile, i)} < p.queryLength) {
    let stat = ${statisticsAt(rowOf(tile, i))};
    lse${i} = f32($lse[p.lse_at + stat]) * LOG2E;
    delta${i} = $delta[p.delta_at + stat];
  }`,
    )
    .join("\n  ");
  const loop = (begin: string, end: string): string => `
  for (var begin = ${begin}; begin < ${end}; begin += ${TILE_COLUMNS}u) {
    workgroupBarrier();
    ${
      resident
        ? stage(block(y1, y1At, true), block(y2, y2At, true))
        : stage(ownRows(x1, x1At)) + stage(block(y1, y1At, true))
    }
    workgroupBarrier();
    ${own.map((i) => `var s${i} = vec4<f32>(); var g${i} = vec4<f32>();`).join(" ")}
    ${scoreTile(tile, "s", x1At, y1At)}
    ${resident ? "" : `workgroupBarrier();\n    ${stage(ownRows(x2, x2At))}\n    ${stage(block(y2, y2At, true))}\n    workgroupBarrier();`}
    ${scoreTile(tile, "g", x2At, y2At)}
    let others = vec4<u32>(begin + across * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    ${ofQuery ? "" : columnStatistics}
    ${weights.join("\n    ")}
    workgroupBarrier();
    ${stageWeights(tile, "g", y1At)}
    ${stage(block(y1, rowsAt, false))}
    workgroupBarrier();
    ${weighRows(tile, "a", y1At, rowsAt)}
    ${
      ofQuery
        ? ""
        : `workgroupBarrier();
    ${stageWeights(tile, "s", y1At)}
    ${stage(block(y2, rowsAt, false))}
    workgroupBarrier();
    ${weighRows(tile, "b", y1At, rowsAt)}`
    }
  }`;
  const results = gradientsOf(owner);
  return {
    name: `attention tile-${owner} ${attentionName(variant)}`,
    ...backwardSignature(tileWords(variant), variant.stats, owner),
    workgroup: tile.threads,
    declarations: `
var<workgroup> tile: array<vec4<f32>, ${size}>;
${attentionFunctions(String(variant.causal))}
${["query", "key", "value", "gradient"].map((name) => loadFour(variant, name)).join("\n")}
${results.map((name) => storeFour(variant, name)).join("\n")}`,
    main: `
  ${attentionPrologue(owner, rows)}
  let across = t % 8u;
  let down = t / 8u;
  ${own.map((i) => slices.map((j) => `var a${i}_${j} = vec4<f32>(); ${ofQuery ? "" : `var b${i}_${j} = vec4<f32>();`}`).join(" ")).join("\n  ")}
  ${ownedStarts(owner, headDim)}
  ${resident ? stage(ownRows(x1, x1At)) + stage(ownRows(x2, x2At)) : ""}
  ${walkOthers(owner, { headDim, rows, block: TILE_COLUMNS, statistics: rowStatistics, loop })}
  ${own
    .map(
      (i) => `{
    let row = ${rowOf(tile, i)};
    if (row < ${xLength}) {
      ${results
        .map((name, n) => {
          const value = (j: number): string => (n === 0 ? `a${i}_${j} * p.scale` : `b${i}_${j}`);
          const stores = slices.map((j) => `store_${name}(rowStart, ${j * 32}u + across * 4u, ${value(j)});`);
          return `{ let rowStart = batch * p.${name}Batch + row * p.${name}Row + head * ${headDim}u; ${stores.join(" ")} }`;
        })
        .join("\n      ")}
    }
  }`,
    )
    .join("\n  ")}`,
  };
}

/** Where things lie in workgroup memory, in vectors. Weights and rows take the place of what scores were made of. */
function arena(
  { depth, rows }: AttentionTile,
  resident: boolean,
): Readonly<Record<"x1At" | "x2At" | "y1At" | "y2At" | "rowsAt" | "size", number>> {
  const x = (depth * rows) / 4;
  const y = (TILE_COLUMNS * Math.max(depth, rows)) / 4;
  const x2At = resident ? x : 0;
  const y1At = x2At + x;
  const rowsAt = y1At + y;
  return {
    x1At: 0,
    x2At,
    y1At,
    y2At: resident ? rowsAt : y1At,
    rowsAt,
    size: rowsAt + (resident ? y : (TILE_COLUMNS * depth) / 4),
  };
}

/** Bytes of workgroup memory; the forward kernel takes no more. */
export function backwardBytes(headDim: number, resident: boolean): number {
  return 16 * arena(attentionTile(headDim), resident).size;
}

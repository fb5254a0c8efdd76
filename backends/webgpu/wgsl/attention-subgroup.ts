/**
 * Attention on subgroup matrices (tensor cores): float16 operands, float32 scores and sums. A workgroup of four subgroups
 * owns 64 rows, 16 to each. Elements of subgroup matrices are out of reach, so scores pass through a strip of workgroup
 * memory that belongs to the subgroup; there, two lanes share a row. What a block adds to the output takes the same way,
 * and the output itself stays in registers, where it can be rescaled.
 *
 * @module
 */
import {
  type AttentionVariant,
  attentionFunctions,
  attentionName,
  attentionPrologue,
  forwardSignature,
  forwardStarts,
} from "./attention-common.ts";
import { type StagedRows, stageWords } from "./attention-stage.ts";
import { range } from "./range.ts";
import type { ElementType, KernelFeature, KernelSource } from "./source.ts";
import { LANES, loadMatrix, MATRIX, ZERO } from "./subgroup-matrix.ts";

/** Subgroups of a workgroup. */
export const SUBGROUPS = 4;
/** Query rows that one workgroup owns. */
export const OWNED_ROWS: number = MATRIX * SUBGROUPS;

/** What every kernel of this kind needs and has. */
export const MATRIX_KERNEL: {
  readonly workgroup: number;
  readonly features: readonly KernelFeature[];
} = { workgroup: LANES * SUBGROUPS, features: ["f16", "subgroups", "subgroup-matrix"] };

/** Extents of tiles for a head dimension; strides and sizes count 16-byte words. */
export interface MatrixTile {
  /** The head dimension, padded. */
  readonly depth: number;
  /** Rows of a block of the other operand. */
  readonly block: number;
  /** Between staged rows of an operand, of a score strip (float32) and of a weight strip (float16). */
  readonly rowStride: number;
  readonly scoreStride: number;
  readonly weightStride: number;
}

/** The tile for a head dimension up to 128. */
export function matrixTile(headDim: number): MatrixTile {
  const depth = Math.ceil(headDim / MATRIX) * MATRIX;
  const block = depth <= 64 ? 64 : 32;
  return { depth, block, rowStride: depth / 8 + 1, scoreStride: block / 4 + 2, weightStride: block / 8 + 1 };
}

/** Most bytes of workgroup memory that a kernel takes: the forward one. */
export function matrixBytes(headDim: number): number {
  const { block, rowStride, scoreStride, weightStride } = matrixTile(headDim);
  return 16 * (2 * block * rowStride + OWNED_ROWS * (scoreStride + Math.max(rowStride, weightStride)));
}

/** What operands are read and written as. */
export function matrixWords({ vector }: AttentionVariant): ElementType {
  return vector ? "vec4<u32>" : "f16";
}

/** A function that loads eight neighbours of a row as a word, zero beyond the head dimension. */
export function loadEight({ headDim, vector }: AttentionVariant, name: string): string {
  const body = vector
    ? `if (d >= ${headDim}u) { return vec4<u32>(); } return $${name}[p.${name}_at + ((rowStart + d) >> 3u)];`
    : `var eight = vec4<u32>();
  for (var j = 0u; j < 4u; j++) {
    var pair = vec2<f16>();
    if (d + 2u * j < ${headDim}u) { pair.x = $${name}[p.${name}_at + rowStart + d + 2u * j]; }
    if (d + 2u * j + 1u < ${headDim}u) { pair.y = $${name}[p.${name}_at + rowStart + d + 2u * j + 1u]; }
    eight[j] = bitcast<u32>(pair);
  }
  return eight;`;
  return `fn load_${name}(rowStart: u32, d: u32) -> vec4<u32> {\n  ${body}\n}`;
}

/** A function that stores eight neighbours of a row, as far as the head dimension. */
export function storeEight({ headDim, vector }: AttentionVariant, name: string): string {
  const body = vector
    ? `if (d < ${headDim}u) { $${name}[p.${name}_at + ((rowStart + d) >> 3u)] = pack(low, high); }`
    : `for (var j = 0u; j < 4u; j++) {
    if (d + j < ${headDim}u) { $${name}[p.${name}_at + rowStart + d + j] = f16(low[j]); }
    if (d + 4u + j < ${headDim}u) { $${name}[p.${name}_at + rowStart + d + 4u + j] = f16(high[j]); }
  }`;
  return `fn store_${name}(rowStart: u32, d: u32, low: vec4<f32>, high: vec4<f32>) {\n  ${body}\n}`;
}

/** `pack`: eight floats as a word of halves. */
export const PACK = `
fn pack(low: vec4<f32>, high: vec4<f32>) -> vec4<u32> {
  let l = vec4<f16>(low);
  let h = vec4<f16>(high);
  return vec4<u32>(bitcast<u32>(l.xy), bitcast<u32>(l.zw), bitcast<u32>(h.xy), bitcast<u32>(h.zw));
}`;

/** Stages rows of operands. */
export function stageRows({ depth, rowStride }: MatrixTile, ...operands: readonly StagedRows[]): string {
  const words = depth / 8;
  const threads = LANES * SUBGROUPS;
  return stageWords({ threads, words, word: 8 }, operands, ({ rows, to }, value, i) => {
    const guard = (i + 1) * threads <= rows * words ? "" : `if (r < ${rows}u)`;
    return `${guard} { tile[${to}u + r * ${rowStride}u + d] = ${value}; }`;
  });
}

/** Loads the subgroup's rows, staged at word `at`, as left matrices `name0`, `name1`, ... along the depth. */
export function loadOwned(tile: MatrixTile, name: string, at: number): string {
  return range(tile.depth / MATRIX)
    .map(
      (d) =>
        `let ${name}${d} = ${loadMatrix("left", "row_major", `${at}u + subgroup * ${MATRIX * tile.rowStride}u + ${2 * d}u`, tile.rowStride)};`,
    )
    .join(" ");
}

/** Products of owned matrices with staged rows, stored to the subgroup's score strip. */
export function scores(tile: MatrixTile, owned: string, rowsAt: number): string {
  return range(tile.block / MATRIX)
    .map((j) => {
      const steps = range(tile.depth / MATRIX).map(
        (d) =>
          `s = subgroupMatrixMultiplyAccumulate(${owned}${d}, ${loadMatrix("right", "col_major", `${rowsAt + j * MATRIX * tile.rowStride + 2 * d}u`, tile.rowStride)}, s);`,
      );
      return `{ var s = ${ZERO}; ${steps.join(" ")} subgroupMatrixStore<row_major>(&tile, strip + ${4 * j}u, s, ${tile.scoreStride}u); }`;
    })
    .join("\n    ");
}

/** Loads a weight strip at word `at` as left matrices `name0`, `name1`, ... along the block. */
export function loadWeights(tile: MatrixTile, name: string, at: string): string {
  return range(tile.block / MATRIX)
    .map(
      (k) => `let ${name}${k} = ${loadMatrix("left", "row_major", `${at} + ${2 * k}u`, tile.weightStride)};`,
    )
    .join(" ");
}

/** Adds weights times staged rows to \`result\`, for the depths of matrix \`column\`. */
export function weigh(
  tile: MatrixTile,
  weights: string,
  rowsAt: number,
  column: number,
  result: string,
): string {
  return range(tile.block / MATRIX)
    .map(
      (k) =>
        `${result} = subgroupMatrixMultiplyAccumulate(${weights}${k}, ${loadMatrix("right", "row_major", `${rowsAt + k * MATRIX * tile.rowStride + 2 * column}u`, tile.rowStride)}, ${result});`,
    )
    .join(" ");
}

/** Chunks of eight columns that a lane has of a row of `columns`: every second one. */
export function chunksOf(columns: number): readonly number[] {
  return range(columns / 16);
}

/** The forward kernel for a variant. */
export function attentionMatrix(variant: AttentionVariant): KernelSource {
  const { headDim, stats } = variant;
  const tile = matrixTile(headDim);
  const { depth, block, rowStride, scoreStride, weightStride } = tile;
  const valuesAt = block * rowStride;
  const scoresAt = 2 * block * rowStride;
  const queriesAt = scoresAt + OWNED_ROWS * scoreStride;
  const size = queriesAt + Math.max(OWNED_ROWS * rowStride, OWNED_ROWS * weightStride);
  // The output's columns go through the score strip in turns of its width.
  const width = Math.min(depth, block);
  const turns = range(Math.ceil(depth / width));
  const columnsOf = (turn: number): number => Math.min(width, depth - turn * width);
  const keys = { rows: block, begin: "begin", length: "p.keyLength" } as const;
  const own = chunksOf(depth);
  const chunk = (i: number): string => `(half + ${2 * i}u)`;
  const scoreAt = (i: number): string => `strip + row * ${scoreStride}u + 2u * ${chunk(i)}`;
  const seen = (i: number, part: number): string =>
    `(vec4<u32>(begin + 8u * ${chunk(i)} + ${4 * part}u) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(limit))`;
  const parts = chunksOf(block).flatMap((i) => [0, 1].map((part) => ({ i, part, name: `s${i}_${part}` })));
  return {
    name: `attention matrix ${attentionName(variant)}`,
    ...forwardSignature(matrixWords(variant), stats),
    ...MATRIX_KERNEL,
    declarations: `
var<workgroup> tile: array<vec4<u32>, ${size}>;
${attentionFunctions(String(variant.causal))}
${PACK}
${["query", "key", "value"].map((name) => loadEight(variant, name)).join("\n")}
${storeEight(variant, "out")}`,
    main: `
  ${attentionPrologue("query", OWNED_ROWS)}
  ${forwardStarts(headDim)}
  let strip = ${scoresAt}u + subgroup * ${MATRIX * scoreStride}u;
  let weights = ${queriesAt}u + subgroup * ${MATRIX * weightStride}u;
  let row = lane / 2u;
  let half = lane % 2u;
  let query = rowBegin + subgroup * ${MATRIX}u + row;
  let limit = visible(query);
  ${stageRows(tile, { name: "query", rows: OWNED_ROWS, begin: "rowBegin", length: "p.queryLength", to: queriesAt })}
  workgroupBarrier();
  ${loadOwned(tile, "q", queriesAt)}
  var peak = LOWEST;
  var total = 0.0;
  ${own.map((i) => `var o${i}_0 = vec4<f32>(); var o${i}_1 = vec4<f32>();`).join(" ")}
  let end = visible(min(rowBegin + ${OWNED_ROWS - 1}u, p.queryLength - 1u));
  for (var begin = 0u; begin < end; begin += ${block}u) {
    workgroupBarrier();
    ${stageRows(tile, { name: "key", to: 0, ...keys }, { name: "value", to: valuesAt, ...keys })}
    workgroupBarrier();
    ${scores(tile, "q", 0)}
    workgroupBarrier();
    var top = LOWEST;
    ${parts
      .map(
        ({ i, part, name }) =>
          `var ${name} = select(vec4<f32>(LOWEST), bitcast<vec4<f32>>(tile[${scoreAt(i)} + ${part}u]) * (p.scale * LOG2E), ${seen(i, part)});
    top = max(top, max(max(${name}.x, ${name}.y), max(${name}.z, ${name}.w)));`,
      )
      .join("\n    ")}
    top = max(top, subgroupShuffleXor(top, 1u));
    let next = max(peak, top);
    let decay = exp2(peak - next);
    peak = next;
    total *= decay;
    ${parts
      .map(
        ({ i, part, name }) =>
          `${name} = select(vec4<f32>(), exp2(${name} - vec4<f32>(next)), ${seen(i, part)}); total += dot(${name}, vec4<f32>(1.0));`,
      )
      .join("\n    ")}
    ${chunksOf(block)
      .map((i) => `tile[weights + row * ${weightStride}u + ${chunk(i)}] = pack(s${i}_0, s${i}_1);`)
      .join(" ")}
    ${own.map((i) => `o${i}_0 *= decay; o${i}_1 *= decay;`).join(" ")}
    workgroupBarrier();
    ${loadWeights(tile, "w", "weights")}
    ${turns
      .map((turn) => {
        const columns = columnsOf(turn);
        const products = range(columns / MATRIX).map(
          (j) =>
            `{ var s = ${ZERO}; ${weigh(tile, "w", valuesAt, (turn * width) / MATRIX + j, "s")} subgroupMatrixStore<row_major>(&tile, strip + ${4 * j}u, s, ${scoreStride}u); }`,
        );
        const sums = chunksOf(columns).flatMap((i) =>
          [0, 1].map(
            (part) =>
              `o${(turn * width) / 16 + i}_${part} += bitcast<vec4<f32>>(tile[${scoreAt(i)} + ${part}u]);`,
          ),
        );
        return `${turn > 0 ? "workgroupBarrier();" : ""}
    ${products.join("\n    ")}
    workgroupBarrier();
    ${sums.join(" ")}`;
      })
      .join("\n    ")}
  }
  total += subgroupShuffleXor(total, 1u);
  if (query < p.queryLength) {
    var factor = 0.0;
    if (total > 0.0) { factor = 1.0 / total; }
    let rowStart = batch * p.outBatch + query * p.outRow + head * ${headDim}u;
    ${own.map((i) => `store_out(rowStart, 8u * ${chunk(i)}, o${i}_0 * factor, o${i}_1 * factor);`).join(" ")}
    if (half == 0u) { $lse[p.lse_at + plane * p.queryLength + query] = ${stats}(logSum(peak, total)); }
  }`,
  };
}

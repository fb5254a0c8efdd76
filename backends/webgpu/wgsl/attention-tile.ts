/**
 * Attention on plain arithmetic units, forward, after FlashAttention (Dao et al., 2022): a workgroup owns a block of query
 * rows, walks over blocks of keys, and keeps a running maximum, sum and output for each row. Operands lie transposed in
 * workgroup memory, so that products are register tiles of vectors; eight neighbouring threads share a row.
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
import type { ElementType, KernelSource } from "./source.ts";

/** Keys (forward) or looped rows (backward) of a block. */
export const TILE_COLUMNS = 32;

/** Threads that share a row. */
const ACROSS = 8;

/** Extents of tiles for a head dimension. */
export interface AttentionTile {
  /** The head dimension, padded. */
  readonly depth: number;
  /** Rows that a workgroup owns. */
  readonly rows: number;
  readonly threads: number;
  /** Groups of four rows, and of four depths, that a thread computes. */
  readonly quads: readonly number[];
  readonly slices: readonly number[];
}

/** The tile for a head dimension up to 128. */
export function attentionTile(headDim: number, threads?: number): AttentionTile {
  const depth = Math.ceil(headDim / 32) * 32;
  const rows = depth <= 64 ? 64 : 32;
  const all = threads ?? 2 * rows;
  return { depth, rows, threads: all, quads: range((rows * ACROSS) / all / 4), slices: range(depth / 32) };
}

/** Row i of a thread, in the workgroup's. */
export function rowOf({ threads }: AttentionTile, i: number): string {
  return `rowBegin + ${Math.floor(i / 4) * (threads / ACROSS) * 4 + (i % 4)}u + down * 4u`;
}

/** What operands are read and written as. */
export function tileWords({ element, vector }: AttentionVariant): ElementType {
  return vector ? `vec4<${element}>` : element;
}

/** A function that loads four neighbours of a row, zero beyond the head dimension. */
export function loadFour(variant: AttentionVariant, name: string): string {
  const { headDim, vector } = variant;
  const body = vector
    ? `if (d >= ${headDim}u) { return vec4<f32>(); } return vec4<f32>($${name}[p.${name}_at + ((rowStart + d) >> 2u)]);`
    : `var four = vec4<f32>();
  for (var j = 0u; j < 4u; j++) { if (d + j < ${headDim}u) { four[j] = f32($${name}[p.${name}_at + rowStart + d + j]); } }
  return four;`;
  return `fn load_${name}(rowStart: u32, d: u32) -> vec4<f32> {\n  ${body}\n}`;
}

/** A function that stores four neighbours of a row, as far as the head dimension. */
export function storeFour(variant: AttentionVariant, name: string): string {
  const { headDim, vector, element } = variant;
  const body = vector
    ? `if (d < ${headDim}u) { $${name}[p.${name}_at + ((rowStart + d) >> 2u)] = vec4<${element}>(four); }`
    : `for (var j = 0u; j < 4u; j++) { if (d + j < ${headDim}u) { $${name}[p.${name}_at + rowStart + d + j] = ${element}(four[j]); } }`;
  return `fn store_${name}(rowStart: u32, d: u32, four: vec4<f32>) {\n  ${body}\n}`;
}

/** Rows of an operand to stage, vector by vector. */
export interface Staged extends StagedRows {
  /** Depth-major, for products along the depth; row by row otherwise. */
  readonly transposed: boolean;
}

/**
 * Stages rows of operands. Depth-major vectors are swizzled by their depth, as weights are by their column: neither stores
 * nor loads meet in a bank.
 */
export function stageRows({ depth, threads }: AttentionTile, ...operands: readonly Staged[]): string {
  const words = depth / 4;
  return stageWords({ threads, words, word: 4 }, operands, ({ rows, to, transposed }, value) =>
    transposed
      ? range(4)
          .map(
            (j) =>
              `tile[${to}u + (d * 4u + ${j}u) * ${rows / 4}u + ((r >> 2u) ^ (d & 7u))][r & 3u] = ${value}[${j}];`,
          )
          .join(" ")
      : `tile[${to}u + r * ${words}u + d] = ${value};`,
  );
}

/** Products of staged rows and staged columns, both depth-major: added to `name0`, `name1`, ..., four columns each. */
export function scoreTile(tile: AttentionTile, name: string, rowsAt: number, columnsAt: number): string {
  const { rows, quads, depth } = tile;
  const downs = tile.threads / ACROSS;
  const step = (j: number): string => `{
        let y = tile[${columnsAt}u + (d * 4u + ${j}u) * ${TILE_COLUMNS / 4}u + (across ^ twist)];
        ${quads.map((q) => `let x${q} = tile[${rowsAt}u + (d * 4u + ${j}u) * ${rows / 4}u + ${q * downs}u + (down ^ twist)];`).join(" ")}
        ${quads.flatMap((q) => range(4).map((r) => `${name}${q * 4 + r} = fma(vec4<f32>(x${q}[${r}]), y, ${name}${q * 4 + r});`)).join(" ")}
      }`;
  return `for (var d = 0u; d < ${depth / 4}u; d++) {
      let twist = d & 7u;
      ${range(4).map(step).join("\n      ")}
    }`;
}

/** Adds staged weights (column-major) times staged rows (row by row) to `name0_0`, ...: row, then group of depths. */
export function weighRows(tile: AttentionTile, name: string, weightsAt: number, rowsAt: number): string {
  const { rows, quads, slices, depth } = tile;
  const downs = tile.threads / ACROSS;
  const step = (c: number): string => `{
        ${slices.map((j) => `let y${j} = tile[${rowsAt}u + (s * 4u + ${c}u) * ${depth / 4}u + ${j * 8}u + across];`).join(" ")}
        ${quads.map((q) => `let x${q} = tile[${weightsAt}u + (s * 4u + ${c}u) * ${rows / 4}u + ${q * downs}u + (down ^ s)];`).join(" ")}
        ${quads
          .flatMap((q) =>
            range(4).flatMap((r) =>
              slices.map(
                (j) =>
                  `${name}${q * 4 + r}_${j} = fma(vec4<f32>(x${q}[${r}]), y${j}, ${name}${q * 4 + r}_${j});`,
              ),
            ),
          )
          .join(" ")}
      }`;
  return `for (var s = 0u; s < ${TILE_COLUMNS / 4}u; s++) {
      ${range(4).map(step).join("\n      ")}
    }`;
}

/** Stages a thread's tile (rows by four columns) column-major, as `weighRows` reads it. */
export function stageWeights(tile: AttentionTile, name: string, to: number): string {
  const { rows, quads } = tile;
  const downs = tile.threads / ACROSS;
  return quads
    .flatMap((q) =>
      range(4).map((c) => {
        const column = range(4).map((r) => `${name}${q * 4 + r}[${c}]`);
        return `tile[${to}u + (across * 4u + ${c}u) * ${rows / 4}u + ${q * downs}u + (down ^ across)] = vec4<f32>(${column.join(", ")});`;
      }),
    )
    .join(" ");
}

/** The forward kernel for a variant. */
export function attentionTiled(variant: AttentionVariant, tile: AttentionTile): KernelSource {
  const { headDim, stats } = variant;
  const { rows, depth, quads, slices } = tile;
  const own = quads.flatMap((q) => range(4).map((r) => q * 4 + r));
  const keysAt = (depth * rows) / 4;
  const valuesAt = keysAt + (TILE_COLUMNS * Math.max(depth, rows)) / 4;
  const size = valuesAt + (TILE_COLUMNS * depth) / 4;
  const block = { rows: TILE_COLUMNS, begin: "begin", length: "p.keyLength" } as const;
  const softmax = own.map(
    (i) => `{
        let row = ${rowOf(tile, i)};
        var s = s${i} * (p.scale * LOG2E);
        let seen = keys < vec4<u32>(visible(row));
        s = select(vec4<f32>(LOWEST), s, seen);
        var top = max(max(s.x, s.y), max(s.z, s.w));
        top = max(top, subgroupShuffleXor(top, 1u));
        top = max(top, subgroupShuffleXor(top, 2u));
        top = max(top, subgroupShuffleXor(top, 4u));
        let next = max(peak${i}, top);
        let decay = exp2(peak${i} - next);
        peak${i} = next;
        s${i} = select(vec4<f32>(), exp2(s - next), seen);
        total${i} = total${i} * decay + dot(s${i}, vec4<f32>(1.0));
        ${slices.map((j) => `o${i}_${j} *= decay;`).join(" ")}
      }`,
  );
  return {
    name: `attention tile ${attentionName(variant)}`,
    ...forwardSignature(tileWords(variant), stats),
    workgroup: tile.threads,
    features: ["subgroups"],
    declarations: `
var<workgroup> tile: array<vec4<f32>, ${size}>;
${attentionFunctions(String(variant.causal))}
${["query", "key", "value"].map((name) => loadFour(variant, name)).join("\n")}
${storeFour(variant, "out")}`,
    main: `
  ${attentionPrologue("query", rows)}
  let across = t % 8u;
  let down = t / 8u;
  ${forwardStarts(headDim)}
  ${own.map((i) => `var peak${i} = LOWEST; var total${i} = 0.0; ${slices.map((j) => `var o${i}_${j} = vec4<f32>();`).join(" ")}`).join("\n  ")}
  ${stageRows(tile, { name: "query", rows, begin: "rowBegin", length: "p.queryLength", to: 0, transposed: true })}
  let end = visible(min(rowBegin + ${rows - 1}u, p.queryLength - 1u));
  for (var begin = 0u; begin < end; begin += ${TILE_COLUMNS}u) {
    workgroupBarrier();
    ${stageRows(tile, { name: "key", to: keysAt, transposed: true, ...block }, { name: "value", to: valuesAt, transposed: false, ...block })}
    workgroupBarrier();
    ${own.map((i) => `var s${i} = vec4<f32>();`).join(" ")}
    ${scoreTile(tile, "s", 0, keysAt)}
    let keys = vec4<u32>(begin + across * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    ${softmax.join("\n    ")}
    workgroupBarrier();
    ${stageWeights(tile, "s", keysAt)}
    workgroupBarrier();
    ${weighRows(tile, "o", keysAt, valuesAt)}
  }
  ${own
    .map(
      (i) => `{
    let row = ${rowOf(tile, i)};
    total${i} += subgroupShuffleXor(total${i}, 1u);
    total${i} += subgroupShuffleXor(total${i}, 2u);
    total${i} += subgroupShuffleXor(total${i}, 4u);
    if (row < p.queryLength) {
      var factor = 0.0;
      if (total${i} > 0.0) { factor = 1.0 / total${i}; }
      let rowStart = batch * p.outBatch + row * p.outRow + head * ${headDim}u;
      ${slices.map((j) => `store_out(rowStart, ${j * 32}u + across * 4u, o${i}_${j} * factor);`).join(" ")}
      if (across == 0u) { $lse[p.lse_at + plane * p.queryLength + row] = ${stats}(logSum(peak${i}, total${i})); }
    }
  }`,
    )
    .join("\n  ")}`,
  };
}

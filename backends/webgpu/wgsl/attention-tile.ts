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
  attentionOperands,
  attentionParams,
  attentionPrologue,
} from "./attention-common.ts";
import type { KernelSource } from "./source.ts";

/** Threads of a workgroup: eight rows of eight. */
export const TILE_THREADS = 64;
/** Keys (forward) or looped rows (backward) of a block. */
export const TILE_COLUMNS = 32;

/** Extents of tiles for a head dimension. */
export interface AttentionTile {
  /** The head dimension, padded. */
  readonly depth: number;
  /** Rows that a workgroup owns. */
  readonly rows: number;
  /** Groups of four rows, and of four depths, that a thread computes. */
  readonly quads: readonly number[];
  readonly slices: readonly number[];
}

export const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** The tile for a head dimension up to 128. */
export function attentionTile(headDim: number): AttentionTile {
  const depth = Math.ceil(headDim / 32) * 32;
  const rows = depth <= 64 ? 64 : 32;
  return { depth, rows, quads: range(rows / 32), slices: range(depth / 32) };
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

/** Stages `rows` rows of an operand from `begin` in workgroup memory at vector `to`, transposed (depth-major) or not. */
export function stageRows(
  tile: AttentionTile,
  name: string,
  rows: number,
  begin: string,
  length: string,
  headStart: string,
  to: number,
  transposed: boolean,
): string {
  const deep = tile.depth / 4;
  const [r, d] = transposed ? [`index % ${rows}u`, `index / ${rows}u`] : [`index / ${deep}u`, `index % ${deep}u`];
  const store = transposed
    ? range(4)
        .map((j) => `tile[${to}u + (d * 4u + ${j}u) * ${rows / 4}u + (r >> 2u)][r & 3u] = four[${j}];`)
        .join(" ")
    : `tile[${to}u + r * ${deep}u + d] = four;`;
  return `for (var index = t; index < ${rows * deep}u; index += ${TILE_THREADS}u) {
      let r = ${r};
      let d = ${d};
      var four = vec4<f32>();
      if (${begin} + r < ${length}) { four = load_${name}(${headStart} + (${begin} + r) * p.${name}Row, d * 4u); }
      ${store}
    }`;
}

/** Products of staged rows (depth-major, `rows` wide) and staged columns: `name0` to `name(rows-1)`, four columns each. */
export function scoreTile(tile: AttentionTile, name: string, rowsAt: number, columnsAt: number): string {
  const { rows, quads, depth } = tile;
  return `for (var d = 0u; d < ${depth}u; d++) {
      let y = tile[${columnsAt}u + d * ${TILE_COLUMNS / 4}u + across];
      ${quads.map((q) => `let x${q} = tile[${rowsAt}u + d * ${rows / 4}u + ${q * 8}u + down];`).join(" ")}
      ${quads.flatMap((q) => range(4).map((r) => `${name}${q * 4 + r} = fma(vec4<f32>(x${q}[${r}]), y, ${name}${q * 4 + r});`)).join(" ")}
    }`;
}

/** Adds staged weights (column-major: `TILE_COLUMNS` x rows) times staged rows (`TILE_COLUMNS` x depth) to `name`. */
export function weighRows(tile: AttentionTile, name: string, weightsAt: number, rowsAt: number): string {
  const { rows, quads, slices, depth } = tile;
  return `for (var s = 0u; s < ${TILE_COLUMNS}u; s++) {
      ${slices.map((j) => `let y${j} = tile[${rowsAt}u + s * ${depth / 4}u + ${j * 8}u + across];`).join(" ")}
      ${quads.map((q) => `let x${q} = tile[${weightsAt}u + s * ${rows / 4}u + ${q * 8}u + down];`).join(" ")}
      ${quads
        .flatMap((q) =>
          range(4).flatMap((r) =>
            slices.map(
              (j) => `${name}${q * 4 + r}_${j} = fma(vec4<f32>(x${q}[${r}]), y${j}, ${name}${q * 4 + r}_${j});`,
            ),
          ),
        )
        .join(" ")}
    }`;
}

/** Stages a thread's tile (rows by four columns) column-major, as \`weighRows\` reads it. */
export function stageWeights(tile: AttentionTile, name: string, to: number): string {
  const { rows, quads } = tile;
  return quads
    .flatMap((q) =>
      range(4).map(
        (c) =>
          `tile[${to}u + (across * 4u + ${c}u) * ${rows / 4}u + ${q * 8}u + down] = vec4<f32>(${range(4)
            .map((r) => `${name}${q * 4 + r}[${c}]`)
            .join(", ")});`,
      ),
    )
    .join(" ");
}

/** The kernel for a variant, with its workgroup memory in bytes. */
export function attentionTiled(variant: AttentionVariant): KernelSource {
  const { heads, keyHeads, headDim, stats } = variant;
  const tile = attentionTile(headDim);
  const { rows, depth, quads, slices } = tile;
  const own = quads.flatMap((q) => range(4).map((r) => q * 4 + r));
  const keysAt = (depth * rows) / 4;
  const valuesAt = keysAt + (TILE_COLUMNS * Math.max(depth, rows)) / 4;
  const size = valuesAt + (TILE_COLUMNS * depth) / 4;
  const rowOf = (i: number): string => `rowBegin + ${Math.floor(i / 4) * 32 + (i % 4)}u + down * 4u`;
  const softmax = own.map(
    (i) => `{
        let row = ${rowOf(i)};
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
    operands: attentionOperands(variant, 4, {
      query: "read",
      key: "read",
      value: "read",
      out: "write",
      lse: "lse write",
    }),
    params: attentionParams("query", "key", "value", "out"),
    workgroup: TILE_THREADS,
    features: ["subgroups"],
    declarations: `
var<workgroup> tile: array<vec4<f32>, ${size}>;
${attentionFunctions(variant)}
${["query", "key", "value"].map((name) => loadFour(variant, name)).join("\n")}
${storeFour(variant, "out")}`,
    main: `
  ${attentionPrologue(variant, "query", rows)}
  let across = t % 8u;
  let down = t / 8u;
  let keyHead = head * ${keyHeads}u / ${heads}u;
  let queryStart = batch * p.queryBatch + head * ${headDim}u;
  let keyStart = batch * p.keyBatch + keyHead * ${headDim}u;
  let valueStart = batch * p.valueBatch + keyHead * ${headDim}u;
  ${own.map((i) => `var peak${i} = LOWEST; var total${i} = 0.0; ${slices.map((j) => `var o${i}_${j} = vec4<f32>();`).join(" ")}`).join("\n  ")}
  ${stageRows(tile, "query", rows, "rowBegin", "p.queryLength", "queryStart", 0, true)}
  let end = visible(min(rowBegin + ${rows - 1}u, p.queryLength - 1u));
  for (var begin = 0u; begin < end; begin += ${TILE_COLUMNS}u) {
    workgroupBarrier();
    ${stageRows(tile, "key", TILE_COLUMNS, "begin", "p.keyLength", "keyStart", keysAt, true)}
    ${stageRows(tile, "value", TILE_COLUMNS, "begin", "p.keyLength", "valueStart", valuesAt, false)}
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
    let row = ${rowOf(i)};
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

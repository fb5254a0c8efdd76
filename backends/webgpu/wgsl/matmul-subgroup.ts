/**
 * Matrix product of float16 operands on subgroup matrices (tensor cores), accumulating in float32. A workgroup stages
 * blocks of both operands as they lie in memory, in 16-byte words with padded rows; matrices are loaded from there in
 * either order, so no layout needs a transposing copy. Elements of subgroup matrices are out of reach: results pass
 * through workgroup memory on their way out.
 *
 * @module
 */
import {
  epilogue,
  MATMUL_PARAMS,
  type MatmulVariant,
  matmulOperands,
  prologue,
  variantName,
} from "./matmul-common.ts";
import { type Move, multiplyStaged, outerOf, type Stage, stage } from "./matmul-stage.ts";
import { range } from "./range.ts";
import type { KernelSource } from "./source.ts";
import { LANES, loadMatrix, MATRIX, ZERO } from "./subgroup-matrix.ts";

/** Extents of a workgroup's block (`m` x `n`, staged `k` deep), shared by `subgroupsM` x `subgroupsN` subgroups. */
export interface SubgroupTileShape {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly subgroupsM: number;
  readonly subgroupsN: number;
}

/** Threads of a workgroup. */
function subgroupTileThreads(tile: SubgroupTileShape): number {
  return LANES * tile.subgroupsM * tile.subgroupsN;
}

/** Bytes of workgroup memory. */
export function subgroupTileBytes(tile: SubgroupTileShape, variant: Pick<MatmulVariant, "a" | "b">): number {
  return 16 * arena(tile, variant).size;
}

function arena(
  tile: SubgroupTileShape,
  { a, b }: Pick<MatmulVariant, "a" | "b">,
): {
  strideA: number;
  strideB: number;
  vectorsA: number;
  strip: number;
  stripStride: number;
  size: number;
} {
  const strideA = (a.deep ? tile.k : tile.m) / 8 + 1;
  const strideB = (b.deep ? tile.k : tile.n) / 8 + 1;
  const vectorsA = strideA * (a.deep ? tile.m : tile.k);
  const buffer = vectorsA + strideB * (b.deep ? tile.n : tile.k);
  const stripStride = tile.n / tile.subgroupsN / 4 + 2;
  const strip = MATRIX * stripStride;
  const size = Math.max(buffer, tile.subgroupsM * tile.subgroupsN * strip);
  return { strideA, strideB, vectorsA, strip, stripStride, size };
}

/** The kernel for a tile shape and variant. */
export function matmulSubgroup(tile: SubgroupTileShape, variant: MatmulVariant): KernelSource {
  const threads = subgroupTileThreads(tile);
  const { strideA, strideB, vectorsA, strip, stripStride, size } = arena(tile, variant);
  const [perM, perN] = [tile.m / tile.subgroupsM, tile.n / tile.subgroupsN];
  const [rows, columns] = [range(perM / MATRIX), range(perN / MATRIX)];
  const a = asItLies("a", variant, tile, 0, strideA);
  const b = asItLies("b", variant, tile, vectorsA, strideB);
  const step = (s: number): string => {
    const left = rows.map((i) => {
      const at = variant.a.deep
        ? `(subgroupRow + ${i * MATRIX}u) * ${strideA}u + ${(s * MATRIX) / 8}u`
        : `${s * MATRIX * strideA + (i * MATRIX) / 8}u + subgroupRow / 8u`;
      const order = variant.a.deep ? "row_major" : "col_major";
      return `let l${i} = ${loadMatrix("left", order, at, strideA)};`;
    });
    const right = columns.map((j) => {
      const at = variant.b.deep
        ? `(subgroupColumn + ${j * MATRIX}u) * ${strideB}u + ${(s * MATRIX) / 8}u`
        : `${s * MATRIX * strideB + (j * MATRIX) / 8}u + subgroupColumn / 8u`;
      const order = variant.b.deep ? "col_major" : "row_major";
      return `let r${j} = ${loadMatrix("right", order, `${vectorsA}u + ${at}`, strideB)};`;
    });
    const products = rows.flatMap((i) =>
      columns.map((j) => `c${i}_${j} = subgroupMatrixMultiplyAccumulate(l${i}, r${j}, c${i}_${j});`),
    );
    return `{ ${left.join(" ")} ${right.join(" ")} ${products.join(" ")} }`;
  };
  const declarations = `
var<workgroup> tile: array<vec4<u32>, ${size}>;
${emitStrip(variant, perN, stripStride)}
${epilogue(variant)}`;
  const main = `
  ${prologue(tile.m, tile.n)}
  let subgroupRow = (subgroup / ${tile.subgroupsN}u) * ${perM}u;
  let subgroupColumn = (subgroup % ${tile.subgroupsN}u) * ${perN}u;
  ${rows.flatMap((i) => columns.map((j) => `var c${i}_${j} = ${ZERO};`)).join(" ")}
  ${multiplyStaged(a, b, tile.k, range(tile.k / MATRIX).map(step))}
  let strip = subgroup * ${strip}u;
  ${rows
    .map(
      (i) => `workgroupBarrier();
  ${columns.map((j) => `subgroupMatrixStore<row_major>(&tile, strip + ${j * 4}u, c${i}_${j}, ${stripStride}u);`).join(" ")}
  workgroupBarrier();
  emitStrip(strip, lane, rowBegin + subgroupRow + ${i * MATRIX}u, columnBegin + subgroupColumn, outBase);`,
    )
    .join("\n  ")}`;
  return {
    name: `matmul subgroup ${tile.m}x${tile.n}x${tile.k} ${variantName(variant)}`,
    operands: matmulOperands(variant, 8),
    params: MATMUL_PARAMS,
    workgroup: threads,
    features: ["f16", "subgroups", "subgroup-matrix"],
    declarations,
    main,
  };
}

/** Stores a strip of `MATRIX` rows that lies in workgroup memory: neighbouring lanes write neighbouring elements. */
function emitStrip(variant: MatmulVariant, width: number, stride: number): string {
  const perRow = variant.outVector ? width / 4 : width;
  const body = variant.outVector
    ? `emit(row, columnBegin + q * 4u, outBase, bitcast<vec4<f32>>(tile[strip + r * ${stride}u + q]));`
    : `if (columnBegin + q < p.n) { emitOne(row, columnBegin + q, outBase, bitcast<f32>(tile[strip + r * ${stride}u + (q >> 2u)][q & 3u])); }`;
  return `
fn emitStrip(strip: u32, lane: u32, rowBegin: u32, columnBegin: u32, outBase: u32) {
  for (var index = lane; index < ${MATRIX * perRow}u; index += ${LANES}u) {
    let r = index / ${perRow}u;
    let q = index % ${perRow}u;
    let row = rowBegin + r;
    if (row < p.m) { ${body} }
  }
}`;
}

/** How one operand's blocks get to workgroup memory from word `begin` on, in words of eight elements. */
function asItLies(
  name: "a" | "b",
  variant: MatmulVariant,
  tile: SubgroupTileShape,
  begin: number,
  stride: number,
): Stage {
  const layout = variant[name];
  const extent = name === "a" ? tile.m : tile.n;
  const block = {
    name,
    layout,
    extent,
    depths: tile.k,
    threads: subgroupTileThreads(tile),
    word: 8,
  } as const;
  return stage(block, {
    load: (move) => (layout.deep ? loadDeep(name, variant, move) : loadWide(name, variant, move)),
    store: (eight) => `tile[${begin}u + r * ${stride}u + q] = ${eight};`,
  });
}

/** Puts eight elements that do not lie as a word into one. */
function pack(to: string, element: (j: number) => string): string {
  return range(4)
    .map((w) => `${to}[${w}] = bitcast<u32>(vec2<f16>(${element(2 * w)}, ${element(2 * w + 1)}));`)
    .join(" ");
}

/** Loads eight neighbours in depth; beyond the depth they are zero. */
function loadDeep(name: "a" | "b", variant: MatmulVariant, { to, from, depth }: Move): string {
  if (!variant[name].vector) {
    const element = (j: number): string =>
      variant.tail
        ? `select(f16(), $${name}[min(${from} + ${depth} + ${j}u, ${from} + kEnd - 1u - q * 8u)], k + ${j}u < kEnd)`
        : `$${name}[${from} + ${depth} + ${j}u]`;
    return `let k = ${depth} + q * 8u; ${to} = vec4<u32>(); if (k < kEnd) { ${pack(to, element)} }`;
  }
  const whole = `${to} = $${name}[${from} + (${depth} >> 3u)];`;
  if (!variant.tail) return whole;
  // Elements beyond the depth may be anything, NaN too: cut to the ones within, two a word.
  const cut = `let left = kEnd - k; if (left < 8u) { let keep = clamp(vec4<i32>(i32(left)) - vec4<i32>(0, 2, 4, 6), vec4<i32>(0), vec4<i32>(2)); ${to} &= select(select(vec4<u32>(0xffffu), vec4<u32>(0xffffffffu), keep == vec4<i32>(2)), vec4<u32>(), keep == vec4<i32>(0)); }`;
  return `let k = ${depth} + q * 8u; ${to} = vec4<u32>(); if (k < kEnd) { ${whole} ${cut} }`;
}

/** Loads eight neighbours along the outer extent; beyond the depth they are zero. */
function loadWide(name: "a" | "b", variant: MatmulVariant, { to, row, depth }: Move): string {
  const [outerBegin, outerEnd] = outerOf(name);
  const body = variant[name].vector
    ? `${to} = $${name}[${row}];`
    : pack(to, (j) => `$${name}[${row} + min(${outerBegin} + q * 8u + ${j}u, ${outerEnd} - 1u)]`);
  return variant.tail ? `${to} = vec4<u32>(); if (${depth} + r < kEnd) { ${body} }` : body;
}

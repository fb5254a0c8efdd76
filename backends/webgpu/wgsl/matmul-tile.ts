/**
 * Matrix product on plain arithmetic units: a workgroup computes a block of the result from blocks of both operands that
 * it stages, transposed to depth-major order, in workgroup memory. Each thread keeps a register tile in quadrants of four
 * by four.
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

/** Extents of a workgroup's block (`m` x `n`, staged `k` deep) and of a thread's part of it, all multiples of four. */
export interface TileShape {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly threadM: number;
  readonly threadN: number;
}

/** Threads of a workgroup. */
function tileThreads(tile: TileShape): number {
  return (tile.m / tile.threadM) * (tile.n / tile.threadN);
}

/** The kernel for a tile shape and variant. */
export function matmulTile(tile: TileShape, variant: MatmulVariant): KernelSource {
  const threads = tileThreads(tile);
  const [rows, columns] = [range(tile.threadM / 4), range(tile.threadN / 4)];
  const [quadM, quadN] = [tile.m / rows.length, tile.n / columns.length];
  const a = transposed("a", variant, tile.m, tile.k, threads);
  const b = transposed("b", variant, tile.n, tile.k, threads);
  const step = (k: number): string => `{
      ${rows.map((i) => `let x${i} = tileA[threadRow + ${k * a.stride + (i * quadM) / 4}u];`).join(" ")}
      ${columns.map((j) => `let y${j} = tileB[threadColumn + ${k * b.stride + (j * quadN) / 4}u];`).join(" ")}
      ${rows
        .flatMap((i) =>
          range(4).flatMap((r) =>
            columns.map((j) => {
              const c = `c${i * 4 + r}_${j}`;
              return `${c} = fma(vec4<f32>(x${i}[${r}]), y${j}, ${c});`;
            }),
          ),
        )
        .join(" ")}
    }`;
  // Warps of 32 threads cover 4 x 8 register tiles: each reads few distinct addresses of either operand.
  const across = tile.n / tile.threadN;
  const [warpsAcross, inWarp] = across >= 8 ? [across / 8, 8] : [1, across];
  const declarations = `
var<workgroup> tileA: array<vec4<f32>, ${a.size}>;
var<workgroup> tileB: array<vec4<f32>, ${b.size}>;
${epilogue(variant)}`;
  const main = `
  ${prologue(tile.m, tile.n)}
  let warp = t / ${inWarp * 4}u;
  let inWarp = t % ${inWarp * 4}u;
  let threadRow = (warp / ${warpsAcross}u) * 4u + inWarp / ${inWarp}u;
  let threadColumn = (warp % ${warpsAcross}u) * ${inWarp}u + inWarp % ${inWarp}u;
  ${rows.flatMap((i) => range(4).flatMap((r) => columns.map((j) => `var c${i * 4 + r}_${j} = vec4<f32>();`))).join(" ")}
  ${multiplyStaged(a, b, tile.k, range(tile.k).map(step))}
  ${rows
    .flatMap((i) =>
      range(4).map((r) => {
        const emits = columns.map(
          (j) => `emit(row, columnBegin + ${j * quadN}u + threadColumn * 4u, outBase, c${i * 4 + r}_${j});`,
        );
        return `{ let row = rowBegin + ${i * quadM}u + threadRow * 4u + ${r}u; if (row < p.m) { ${emits.join(" ")} } }`;
      }),
    )
    .join("\n  ")}`;
  return {
    name: `matmul tile ${tile.m}x${tile.n}x${tile.k} ${variantName(variant)}`,
    operands: matmulOperands(variant, 4),
    params: MATMUL_PARAMS,
    workgroup: threads,
    declarations,
    main,
  };
}

interface Transposed extends Stage {
  /** Vectors between depths of the staged block: padded, so that transposing stores meet different banks. */
  readonly stride: number;
  /** Vectors of a staged block. */
  readonly size: number;
}

/** How one operand gets from global memory to depth-major blocks. */
function transposed(
  name: "a" | "b",
  variant: MatmulVariant,
  extent: number,
  depths: number,
  threads: number,
): Transposed {
  const layout = variant[name];
  const stride = extent / 4 + (layout.deep ? 1 : 0);
  const to = `tile${name.toUpperCase()}`;
  const moves = {
    load: (move: Move) => (layout.deep ? loadDeep(name, variant, move) : loadWide(name, variant, move)),
    store: (four: string) =>
      layout.deep
        ? range(4)
            .map((j) => `${to}[(q * 4u + ${j}u) * ${stride}u + (r >> 2u)][r & 3u] = ${four}[${j}];`)
            .join(" ")
        : `${to}[r * ${stride}u + q] = ${four};`,
  };
  const staged = stage({ name, layout, extent, depths, threads, word: 4 }, moves);
  return { ...staged, stride, size: stride * depths };
}

/** Loads four neighbours along the outer extent; beyond the depth they are zero. */
function loadWide(name: "a" | "b", variant: MatmulVariant, { to, row, depth }: Move): string {
  const [outerBegin, outerEnd] = outerOf(name);
  const each = range(4).map(
    (j) => `f32($${name}[${row} + min(${outerBegin} + q * 4u + ${j}u, ${outerEnd} - 1u)])`,
  );
  const value = `vec4<f32>(${variant[name].vector ? `$${name}[${row}]` : each.join(", ")})`;
  return variant.tail
    ? `${to} = vec4<f32>(); if (${depth} + r < kEnd) { ${to} = ${value}; }`
    : `${to} = ${value};`;
}

/** Loads four neighbours in depth; beyond the depth they are zero. */
function loadDeep(name: "a" | "b", variant: MatmulVariant, { to, from, depth }: Move): string {
  const k = `let k = ${depth} + q * 4u;`;
  if (variant[name].vector) {
    const whole = `${to} = vec4<f32>($${name}[${from} + (${depth} >> 2u)]);`;
    const cut = `if (k + 4u > kEnd) { ${to} = select(vec4<f32>(), ${to}, vec4<u32>(k, k + 1u, k + 2u, k + 3u) < vec4<u32>(kEnd)); }`;
    return variant.tail ? `${k} ${to} = vec4<f32>(); if (k < kEnd) { ${whole} ${cut} }` : whole;
  }
  const element = (j: number): string => `${to}[${j}] = f32($${name}[${from} + ${depth} + ${j}u]);`;
  return range(4)
    .map((j) =>
      variant.tail
        ? `${to}[${j}] = 0.0; if (${depth} + q * 4u + ${j}u < kEnd) { ${element(j)} }`
        : element(j),
    )
    .join(" ");
}

/** Most bytes of workgroup memory that a tile takes, in any layout. */
export function tileBytes(tile: TileShape): number {
  return 4 * tile.k * (tile.m + tile.n + 8);
}

/**
 * Matrix product on plain arithmetic units: a workgroup computes a block of the result from blocks of both operands that
 * it stages, transposed to depth-major order, in workgroup memory. Each thread keeps a register tile in quadrants of four
 * by four; the next blocks travel from global memory to registers while the current ones are multiplied (a second block in workgroup memory, to save a barrier, was slower).
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

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** The kernel for a tile shape and variant. */
export function matmulTile(tile: TileShape, variant: MatmulVariant): KernelSource {
  const threads = tileThreads(tile);
  const [rows, columns] = [range(tile.threadM / 4), range(tile.threadN / 4)];
  const [quadM, quadN] = [tile.m / rows.length, tile.n / columns.length];
  const a = stage("a", variant.a, tile.m, tile.k, threads, variant.tail);
  const b = stage("b", variant.b, tile.n, tile.k, threads, variant.tail);
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
  if (kBegin < kEnd) {
    ${a.setup}
    ${b.setup}
    var depth = kBegin;
    ${a.load("depth")}
    ${b.load("depth")}
    ${a.store}
    ${b.store}
    workgroupBarrier();
    loop {
      let next = depth + ${tile.k}u;
      let more = next < kEnd;
      if (more) {
        ${a.load("next")}
        ${b.load("next")}
      }
      ${range(tile.k).map(step).join("\n      ")}
      if (!more) { break; }
      workgroupBarrier();
      ${a.store}
      ${b.store}
      workgroupBarrier();
      depth = next;
    }
  }
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
    name: `matmul tile ${tile.m}x${tile.n}x${tile.k} ${variantName(variant)}${variant.tail ? " tail" : ""}`,
    operands: matmulOperands(variant, 4),
    params: MATMUL_PARAMS,
    workgroup: threads,
    declarations,
    main,
  };
}

interface Stage {
  /** Vectors between depths of the staged block: padded, so that transposing stores meet different banks. */
  readonly stride: number;
  /** Vectors of a staged block. */
  readonly size: number;
  readonly setup: string;
  load(depth: string): string;
  readonly store: string;
}

/** How one operand gets from global memory to depth-major blocks. `outer` is its row (a) or column (b) of the product. */
function stage(
  name: "a" | "b",
  operand: MatmulVariant["a"],
  extent: number,
  depths: number,
  threads: number,
  tail: boolean,
): Stage {
  const [outerBegin, outerEnd] = name === "a" ? ["rowBegin", "p.m"] : ["columnBegin", "p.n"];
  const total = (extent * depths) / 4;
  const loads = range(total / threads);
  const pad = operand.deep ? 1 : 0;
  const stride = extent / 4 + pad;
  const perRow = operand.deep ? depths / 4 : extent / 4;
  const at = (i: number): string =>
    `let index = t + ${i * threads}u; let r = index / ${perRow}u; let q = index % ${perRow}u;`;
  const shift = operand.vector ? " >> 2u" : "";
  const setup = loads
    .map((i) => {
      const first = operand.deep
        ? `min(${outerBegin} + r, ${outerEnd} - 1u) * p.${name}Row + q * 4u`
        : operand.vector
          ? `min(${outerBegin} + q * 4u, (${outerEnd} - 1u) & ~3u) + r * p.${name}Row`
          : `r * p.${name}Row`;
      return `var ${name}Base${i}: u32; var ${name}Next${i} = vec4<f32>();
    { ${at(i)} ${name}Base${i} = p.${name}_at + ((batch * p.${name}Batch + ${first})${shift}); }`;
    })
    .join("\n    ");
  const load = (depth: string): string =>
    loads
      .map((i) => {
        const [to, from] = [`${name}Next${i}`, `${name}Base${i}`];
        const wide = `${from} + ((${depth} * p.${name}Row)${shift})`;
        const body = operand.deep
          ? loadDeep(`$${name}`, operand.vector, to, from, depth, tail)
          : loadWide(`$${name}`, operand.vector, to, wide, depth, tail, outerBegin!, outerEnd!);
        return `{ ${at(i)} ${body} }`;
      })
      .join("\n        ");
  const tileName = `tile${name.toUpperCase()}`;
  const store = loads
    .map((i) => {
      const deep = range(4).map(
        (j) => `${tileName}[(q * 4u + ${j}u) * ${stride}u + (r >> 2u)][r & 3u] = ${name}Next${i}[${j}];`,
      );
      const wide = `${tileName}[r * ${stride}u + q] = ${name}Next${i};`;
      return `{ ${at(i)} ${operand.deep ? deep.join(" ") : wide} }`;
    })
    .join("\n      ");
  return { stride, size: stride * depths, setup, load, store };
}

/** Loads four neighbours along the outer extent; beyond the depth they are zero. */
function loadWide(
  name: string,
  vector: boolean,
  to: string,
  row: string,
  depth: string,
  tail: boolean,
  outerBegin: string,
  outerEnd: string,
): string {
  const each = range(4).map(
    (j) => `f32(${name}[${row} + min(${outerBegin} + q * 4u + ${j}u, ${outerEnd} - 1u)])`,
  );
  const value = `vec4<f32>(${vector ? `${name}[${row}]` : each.join(", ")})`;
  return tail ? `${to} = vec4<f32>(); if (${depth} + r < kEnd) { ${to} = ${value}; }` : `${to} = ${value};`;
}

/** Loads four neighbours in depth; beyond the depth they are zero. */
function loadDeep(
  name: string,
  vector: boolean,
  to: string,
  from: string,
  depth: string,
  tail: boolean,
): string {
  const k = `let k = ${depth} + q * 4u;`;
  if (vector) {
    const whole = `${to} = vec4<f32>(${name}[${from} + (${depth} >> 2u)]);`;
    const cut = `if (k + 4u > kEnd) { ${to} = select(vec4<f32>(), ${to}, vec4<u32>(k, k + 1u, k + 2u, k + 3u) < vec4<u32>(kEnd)); }`;
    return tail ? `${k} ${to} = vec4<f32>(); if (k < kEnd) { ${whole} ${cut} }` : whole;
  }
  const element = (j: number): string => `${to}[${j}] = f32(${name}[${from} + ${depth} + ${j}u]);`;
  return range(4)
    .map((j) =>
      tail ? `${to}[${j}] = 0.0; if (${depth} + q * 4u + ${j}u < kEnd) { ${element(j)} }` : element(j),
    )
    .join(" ");
}

/** Most bytes of workgroup memory that a tile takes, in any layout. */
export function tileBytes(tile: TileShape): number {
  return 4 * tile.k * (tile.m + tile.n + 8);
}

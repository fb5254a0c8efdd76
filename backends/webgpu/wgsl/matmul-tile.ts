/**
 * Matrix product on plain arithmetic units: a workgroup computes a block of the result from blocks of both operands that
 * it stages, transposed to depth-major order, in workgroup memory. Each thread keeps a register tile in quadrants of four
 * by four; the next blocks travel from global memory to registers while the current ones are multiplied.
 *
 * @module
 */
import { type MatmulVariant, epilogue, prologue } from "./matmul-common.ts";

/** Extents of a workgroup's block (`m` x `n`, staged `k` deep) and of a thread's part of it, all multiples of four. */
export interface TileShape {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly threadM: number;
  readonly threadN: number;
}

/** Threads of a workgroup. */
export function tileThreads(tile: TileShape): number {
  return (tile.m / tile.threadM) * (tile.n / tile.threadN);
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** The kernel's text, without declarations of bindings and parameters. */
export function matmulTile(tile: TileShape, variant: MatmulVariant): string {
  const threads = tileThreads(tile);
  const [rows, columns] = [range(tile.threadM / 4), range(tile.threadN / 4)];
  const [quadM, quadN] = [tile.m / rows.length, tile.n / columns.length];
  const a = stage("a", variant.a, tile.m, tile.k, threads, variant.tail);
  const b = stage("b", variant.b, tile.n, tile.k, threads, variant.tail);
  const step = (k: number): string => `{
      ${rows.map((i) => `let x${i} = tileA[atA + ${k * a.stride + (i * quadM) / 4}u];`).join(" ")}
      ${columns.map((j) => `let y${j} = tileB[atB + ${k * b.stride + (j * quadN) / 4}u];`).join(" ")}
      ${rows
        .flatMap((i) =>
          range(4).flatMap((r) =>
            columns.map((j) => {
              const c = `c${i * 4 + r}_${j}`;
              return `${c} = fma(vec4f(x${i}[${r}]), y${j}, ${c});`;
            }),
          ),
        )
        .join(" ")}
    }`;
  // Warps of 32 threads cover 4 x 8 register tiles: each reads few distinct addresses of either operand.
  const across = tile.n / tile.threadN;
  const [warpsAcross, inWarp] = across >= 8 ? [across / 8, 8] : [1, across];
  return `
const VECTORS_A = ${a.size}u;
const VECTORS_B = ${b.size}u;
var<workgroup> tileA: array<vec4f, ${2 * a.size}>;
var<workgroup> tileB: array<vec4f, ${2 * b.size}>;

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  ${prologue(tile.m, tile.n)}
  let warp = thread / ${inWarp * 4}u;
  let lane = thread % ${inWarp * 4}u;
  let threadRow = (warp / ${warpsAcross}u) * 4u + lane / ${inWarp}u;
  let threadColumn = (warp % ${warpsAcross}u) * ${inWarp}u + lane % ${inWarp}u;
  ${rows.flatMap((i) => range(4).flatMap((r) => columns.map((j) => `var c${i * 4 + r}_${j} = vec4f();`))).join(" ")}
  if (kBegin < kEnd) {
    ${a.setup}
    ${b.setup}
    var depth = kBegin;
    ${a.load("depth")}
    ${b.load("depth")}
    var current = 0u;
    ${a.store("current")}
    ${b.store("current")}
    workgroupBarrier();
    loop {
      let next = depth + ${tile.k}u;
      let more = next < kEnd;
      if (more) {
        ${a.load("next")}
        ${b.load("next")}
      }
      let atA = current * VECTORS_A + threadRow;
      let atB = current * VECTORS_B + threadColumn;
      ${range(tile.k).map(step).join("\n")}
      if (!more) { break; }
      current = 1u - current;
      ${a.store("current")}
      ${b.store("current")}
      workgroupBarrier();
      depth = next;
    }
  }
  ${rows
    .flatMap((i) =>
      range(4).map(
        (r) => `{
    let row = rowBegin + ${i * quadM}u + threadRow * 4u + ${r}u;
    if (row < p.m) {
      ${columns.map((j) => `emit(row, columnBegin + ${j * quadN}u + threadColumn * 4u, outBase, c${i * 4 + r}_${j});`).join("\n")}
    }
  }`,
      ),
    )
    .join("\n")}
}
${epilogue(variant)}`;
}

interface Stage {
  /** Vectors between depths of the staged block: padded, so that transposing stores meet different banks. */
  readonly stride: number;
  /** Vectors of a staged block. */
  readonly size: number;
  readonly setup: string;
  load(depth: string): string;
  store(buffer: string): string;
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
  const upper = name.toUpperCase();
  const [outerBegin, outerEnd] = name === "a" ? ["rowBegin", "p.m"] : ["columnBegin", "p.n"];
  const total = (extent * depths) / 4;
  const loads = range(Math.ceil(total / threads));
  const guard = total % threads === 0 ? "" : `if (index < ${total}u)`;
  const pad = operand.deep ? 1 : 0;
  const stride = extent / 4 + pad;
  const perRow = operand.deep ? depths / 4 : extent / 4;
  const base = `p.${name}Offset + batch * p.${name}Batch`;
  const at = (i: number): string => `let index = thread + ${i * threads}u; let r = index / ${perRow}u; let q = index % ${perRow}u;`;
  const setup = loads
    .map((i) => {
      const outer = operand.deep
        ? `min(${outerBegin} + r, ${outerEnd} - 1u) * p.${name}Row + q * 4u`
        : operand.vector
          ? `min(${outerBegin} + q * 4u, (${outerEnd} - 1u) & ~3u) + r * p.${name}Row`
          : `r * p.${name}Row`;
      return `var ${name}Base${i}: u32; var ${name}Next${i} = vec4f();
    { ${at(i)} ${name}Base${i} = ${base} + ${outer}; }`;
    })
    .join("\n");
  const scalar = (index: string): string => `f32(${name}[${index}])`;
  const load = (depth: string): string =>
    loads
      .map((i) => {
        const to = `${name}Next${i}`;
        const from = `${name}Base${i}`;
        if (operand.deep) {
          const k = `let k = ${depth} + q * 4u;`;
          if (operand.vector) {
            const whole = `${to} = vec4f(${name}[(${from} + ${depth}) >> 2u]);`;
            if (!tail) return `{ ${whole} }`;
            return `{ ${at(i)} ${k} ${to} = vec4f(); if (k < kEnd) { ${whole} if (k + 4u > kEnd) { ${to} = select(vec4f(), ${to}, vec4u(k, k + 1u, k + 2u, k + 3u) < vec4u(kEnd)); } } }`;
          }
          const each = range(4).map((j) =>
            tail
              ? `${to}[${j}] = 0.0; if (k + ${j}u < kEnd) { ${to}[${j}] = ${scalar(`${from} + ${depth} + ${j}u`)}; }`
              : `${to}[${j}] = ${scalar(`${from} + ${depth} + ${j}u`)};`,
          );
          return `{ ${at(i)} ${k} ${each.join(" ")} }`;
        }
        const row = `${from} + ${depth} * p.${name}Row`;
        const value = operand.vector
          ? `vec4f(${name}[(${row}) >> 2u])`
          : `vec4f(${range(4)
              .map((j) => scalar(`${row} + min(${outerBegin} + q * 4u + ${j}u, ${outerEnd} - 1u)`))
              .join(", ")})`;
        return tail
          ? `{ ${at(i)} ${to} = vec4f(); if (${depth} + r < kEnd) { ${to} = ${value}; } }`
          : `{ ${at(i)} ${to} = ${value}; }`;
      })
      .join("\n        ");
  const store = (buffer: string): string =>
    loads
      .map((i) => {
        const to = `tile${upper}[${buffer} * VECTORS_${upper}`;
        const body = operand.deep
          ? range(4)
              .map((j) => `${to} + (q * 4u + ${j}u) * ${stride}u + (r >> 2u)][r & 3u] = ${name}Next${i}[${j}];`)
              .join(" ")
          : `${to} + r * ${stride}u + q] = ${name}Next${i};`;
        return `{ ${at(i)} ${guard} { ${body} } }`;
      })
      .join("\n      ");
  return { stride, size: stride * depths, setup, load, store };
}

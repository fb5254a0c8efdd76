/**
 * One matrix product on the device: which kernel computes it, with which tile, in how many splits.
 *
 * @module
 */
import type { Span } from "../../../core/contracts/backend.ts";
import type { MatmulArgs, MatrixOperand } from "../../../core/contracts/kernels.ts";
import type { Gpu } from "../dispatch.ts";
import { type FloatType, floatType } from "../spans.ts";
import type { Finish, MatmulVariant } from "../wgsl/matmul-common.ts";
import { matmulPlain, PLAIN_THREADS, PLAIN_TILE } from "../wgsl/matmul-plain.ts";
import { matmulSubgroup, type SubgroupTileShape, subgroupTileBytes } from "../wgsl/matmul-subgroup.ts";
import { matmulSum, SUM_THREADS } from "../wgsl/matmul-sum.ts";
import { matmulTile, type TileShape, tileBytes } from "../wgsl/matmul-tile.ts";
import type { KernelSource } from "../wgsl/source.ts";
import { tensorCores } from "./matmul-cores.ts";

/** A product whose spans are what it touches. */
export type Product = MatmulArgs;

/** Tile shapes, the fast one for large results first; see test/bench/webgpu-kernels.ts for what they reach. */
const TILES: readonly TileShape[] = [
  { m: 128, n: 128, k: 8, threadM: 8, threadN: 8 },
  { m: 64, n: 64, k: 8, threadM: 8, threadN: 8 },
  { m: 32, n: 32, k: 8, threadM: 4, threadN: 4 },
];

/** Short products, and those whose left operand is transposed. */
const WIDE: SubgroupTileShape = { m: 128, n: 128, k: 32, subgroupsM: 2, subgroupsN: 4 };
/** Deep products: fewer barriers, three workgroups at a time. */
const DEEP: SubgroupTileShape = { m: 128, n: 128, k: 64, subgroupsM: 2, subgroupsN: 2 };
/** Results too small for those. */
const SMALL: SubgroupTileShape = { m: 64, n: 64, k: 64, subgroupsM: 2, subgroupsN: 2 };
/** Depth from which the deep tile is the faster one. */
const DEEP_FROM = 1536;

/**
 * What the number of splits is weighed by, in the figures of an H200: multiprocessors, what a tile reaches in operations a
 * second, and bytes a second of partial results. Smaller GPUs have less of all three.
 */
const PROCESSORS = 132;
const RATE: Readonly<Record<4 | 8, number>> = { 4: 45e12, 8: 280e12 };
const BANDWIDTH = 3.5e12;
/** A workgroup alone on a multiprocessor has nobody to hide its waits behind: what it takes longer by. */
const ALONE = 1.4;
/** Most splits, least depth of one, and most bytes of partial results. */
const MAX_SPLITS = 16;
const LEAST_DEPTH = 256;
const MAX_PARTIAL_BYTES = 2 ** 28;

const sources = new Map<string, KernelSource>();

/** The one kernel of a key. */
function source(key: string, make: () => KernelSource): KernelSource {
  let known = sources.get(key);
  if (known === undefined) {
    known = make();
    sources.set(key, known);
  }
  return known;
}

/** Computes a product. */
export function product(gpu: Gpu, args: Product): void {
  if (gpu.features.tiled) tiledProduct(gpu, args);
  else plainProduct(gpu, args);
}

/** The plain twin of `tiledProduct`. */
function plainProduct(gpu: Gpu, args: Product): void {
  const { a, b, out, batch, m, n, k, alpha = 1 } = args;
  const element = floatType(gpu, "matmul", a.span);
  const finish = finishOf(gpu, args);
  const kernel = source(`plain ${element} ${JSON.stringify(finish)}`, () => matmulPlain(element, finish));
  const [aRow, aDeep] = a.transposed ? [1, a.rowStride] : [a.rowStride, 1];
  const [bDeep, bColumn] = b.transposed ? [1, b.rowStride] : [b.rowStride, 1];
  const tiles = batch * Math.ceil(m / PLAIN_TILE) * Math.ceil(n / PLAIN_TILE);
  gpu.dispatch(
    kernel,
    [a.span, b.span, ...finishSpans(args)],
    {
      ...{
        m,
        n,
        k,
        batches: batch,
        aRow,
        aDeep,
        aBatch: a.batchStride,
        bDeep,
        bColumn,
        bBatch: b.batchStride,
      },
      ...{ outRow: out.rowStride, outBatch: out.batchStride, alpha },
    },
    Math.ceil(tiles / PLAIN_THREADS),
  );
}

/** What becomes of a finished sum. */
function finishOf(gpu: Gpu, args: Product): Omit<Finish, "outVector"> {
  const { out, bias, accumulate = false, activation, preactivation } = args;
  return {
    out: floatType(gpu, "matmul", out.span),
    bias: bias && floatType(gpu, "matmul", bias),
    accumulate,
    activation,
    preactivation: preactivation !== undefined,
  };
}

/** Spans of `finishOperands`. */
function finishSpans({ out, bias, preactivation }: Product): Span[] {
  return [out.span, bias, preactivation].filter((span) => span !== undefined);
}

/** A kernel for a variant, and the extents that a workgroup of it computes. */
interface Choice {
  readonly tile: { readonly m: number; readonly n: number; readonly k: number };
  readonly word: 4 | 8;
  kernel(variant: MatmulVariant): KernelSource;
}

/** Computes a product in tiles staged in workgroup memory. */
function tiledProduct(gpu: Gpu, args: Product): void {
  const { a, b, out, batch, m, n, k, alpha = 1, preactivation } = args;
  const choice = choose(gpu, args);
  const { tile } = choice;
  const tiles = batch * Math.ceil(m / tile.m) * Math.ceil(n / tile.n);
  const splits = splitsOf(tiles, k, batch * m * n, (2 * tile.m * tile.n * PROCESSORS) / RATE[choice.word]);
  const chunk = splits === 1 ? Math.max(k, 1) : Math.ceil(k / splits / tile.k) * tile.k;
  const parts = Math.max(1, Math.ceil(k / chunk));
  const element = floatType(gpu, "matmul", a.span);
  const layout = {
    a: layoutOf(a, batch, choice.word, !a.transposed),
    b: layoutOf(b, batch, choice.word, b.transposed),
  };
  const beside = preactivation === undefined || preactivation.offset % 4 === 0;
  const result = { ...finishOf(gpu, args), outVector: n % 4 === 0 && aligned(out, batch, 4) && beside };
  const tail = k % tile.k !== 0;
  const shape = { m, n, k, batches: batch, chunk };
  const strides = { aRow: a.rowStride, aBatch: a.batchStride, bRow: b.rowStride, bBatch: b.batchStride };
  if (parts === 1) {
    const kernel = choice.kernel({ ...layout, ...result, element, tail });
    const params = { ...shape, ...strides, outRow: out.rowStride, outBatch: out.batchStride, alpha };
    gpu.dispatch(kernel, [a.span, b.span, ...finishSpans(args)], params, tiles);
    return;
  }
  gpu.withScratch("float32", parts * batch * m * n, (partial: Span) => {
    const kernel = choice.kernel({
      ...layout,
      element,
      out: "f32",
      outVector: n % 4 === 0,
      bias: undefined,
      accumulate: false,
      activation: undefined,
      preactivation: false,
      tail,
    });
    const params = { ...shape, ...strides, outRow: n, outBatch: parts * m * n, alpha: 1 };
    gpu.dispatch(kernel, [a.span, b.span, partial], params, tiles * parts);
    const sum = source(`sum ${JSON.stringify(result)}`, () => matmulSum(result));
    const rest = {
      m,
      n,
      splits: parts,
      batches: batch,
      outRow: out.rowStride,
      outBatch: out.batchStride,
      alpha,
    };
    gpu.dispatch(
      sum,
      [partial, ...finishSpans(args)],
      rest,
      Math.ceil((batch * m * Math.ceil(n / 4)) / SUM_THREADS),
    );
  });
}

function choose(gpu: Gpu, args: Product): Choice {
  const element: FloatType = floatType(gpu, "matmul", args.a.span);
  if (element === "f16" && tensorCores(gpu)) {
    const tile = subgroupTile(gpu, args);
    if (tile !== undefined) {
      return {
        tile,
        word: 8,
        kernel: (v) => source(`subgroup ${keyOf(tile, v)}`, () => matmulSubgroup(tile, v)),
      };
    }
  }
  const { m, n } = args;
  const fits = TILES.filter((tile) => tileBytes(tile) <= gpu.limits.workgroupBytes);
  const tile = fits.find((shape) => m > shape.m / 2 && n > shape.n / 2) ?? fits.at(-1)!;
  return { tile, word: 4, kernel: (v) => source(`tile ${keyOf(tile, v)}`, () => matmulTile(tile, v)) };
}

function subgroupTile(gpu: Gpu, { a, b, batch, m, n, k }: Product): SubgroupTileShape | undefined {
  const vector = aligned(a, batch, 8) && aligned(b, batch, 8);
  const large = m > 64 && n > 64;
  const wanted = large ? (!a.transposed && k >= DEEP_FROM && vector ? [DEEP, WIDE] : [WIDE]) : [];
  const layout = { a: { deep: !a.transposed, vector }, b: { deep: b.transposed, vector } };
  return [...wanted, SMALL].find((tile) => subgroupTileBytes(tile, layout) <= gpu.limits.workgroupBytes);
}

function keyOf(tile: object, variant: MatmulVariant): string {
  return `${JSON.stringify(tile)} ${JSON.stringify(variant)}`;
}

function layoutOf(operand: MatrixOperand, batch: number, word: 4 | 8, deep: boolean): MatmulVariant["a"] {
  return { deep, vector: aligned(operand, batch, word) };
}

/** Whether every row of an operand begins at a multiple of `word` elements. */
function aligned({ span, rowStride, batchStride }: MatrixOperand, batch: number, word: number): boolean {
  return span.offset % word === 0 && rowStride % word === 0 && (batch === 1 || batchStride % word === 0);
}

/**
 * How many parts to split the depth into. Multiprocessors that have one workgroup more than the others are what the rest
 * wait for, so few workgroups are evened out by splitting them; partial results cost bandwidth in turn.
 *
 * @param tiles workgroups of the product as a whole
 * @param elements of the result
 * @param second what a step of depth costs a workgroup that has a multiprocessor to itself
 */
export function splitsOf(tiles: number, depth: number, elements: number, second: number): number {
  const most = Math.min(
    MAX_SPLITS,
    Math.floor(depth / LEAST_DEPTH),
    Math.floor(MAX_PARTIAL_BYTES / (4 * elements)),
  );
  if (tiles >= 2 * PROCESSORS) return 1;
  const cost = (splits: number): number => {
    const rounds = Math.max(ALONE, Math.ceil((tiles * splits) / PROCESSORS));
    const partial = splits === 1 ? 0 : (8 * splits * elements) / BANDWIDTH;
    return rounds * Math.ceil(depth / splits) * second + partial;
  };
  let best = 1;
  for (let splits = 2; splits <= most; splits++) {
    if (cost(splits) < cost(best)) best = splits;
  }
  return best;
}

/**
 * Reductions of float32 and of 16-bit floats, in WebAssembly SIMD where the runtime has it. Terms are added in float32,
 * in rank order, and 16-bit results are rounded once.
 *
 * Ranks' inputs lie in memories of their own, and a module sees just one: tiles of them are copied into a small one
 * first, which stays in cache. So memory is passed over once, whatever the number of ranks, and the output may be one of
 * the inputs.
 *
 * @module
 */
import type { ReductionOp } from "../../core/contracts/collective.ts";
import { bytesOf, DTYPES, type HostArray } from "../../core/contracts/dtype.ts";
import { type HalfModule, loadHalf } from "../../core/runtime/half/module.ts";
import { type HalfDType, plainConverter } from "../../core/runtime/half/plain.ts";
import { createSharedMemory } from "../../core/runtime/host-memory.ts";

/** Elements of a tile: 64 KiB of float32. */
const TILE = 16384;
/** Where the sums, the term that is added to them, and 16-bit elements lie in a tile's memory, in bytes. */
const [TOTAL, TERM, WORDS] = [0, 4 * TILE, 8 * TILE];
const TILE_PAGES = 3;

/** What reduces in a tile's memory. */
interface TileKernels {
  readonly buffer: ArrayBufferLike;
  readonly kernels: HalfModule;
}

/** In plain TypeScript: the twin, and what runs where there is no SIMD. */
export const plainTile: TileKernels = plainKernels();

let fastTile: TileKernels | undefined;

/** In WebAssembly when the runtime has SIMD; this thread's. */
function bestTile(): TileKernels {
  if (fastTile === undefined) {
    const memory = createSharedMemory(TILE_PAGES, TILE_PAGES);
    const kernels = loadHalf(memory);
    fastTile = kernels === undefined ? plainTile : { buffer: memory.buffer, kernels };
  }
  return fastTile;
}

/** `output[i] = op over r of inputs[r][i]`; all have the same length, and `output` may be exactly one of the inputs. */
export function reduceFloats(
  dtype: HalfDType | "float32",
  output: HostArray,
  inputs: readonly HostArray[],
  op: ReductionOp,
  tile: TileKernels = bestTile(),
): void {
  const { buffer, kernels } = tile;
  const { bytes } = DTYPES[dtype];
  const target = bytesOf(output);
  const sources = inputs.map(bytesOf);
  for (let begin = 0; begin < output.length; begin += TILE) {
    const length = Math.min(TILE, output.length - begin);
    const [first, end] = [begin * bytes, (begin + length) * bytes];
    for (const [rank, source] of sources.entries()) {
      const place = rank === 0 ? TOTAL : TERM;
      const copied = new Uint8Array(buffer, dtype === "float32" ? place : WORDS, length * bytes);
      copied.set(source.subarray(first, end));
      if (dtype !== "float32") kernels.widenRows(dtype, WORDS, 0, place, 0, 1, length);
      if (rank > 0) kernels.combine(op === "max" ? "max" : "sum", TOTAL, TERM, length);
    }
    if (op === "avg") kernels.divide(TOTAL, length, inputs.length);
    if (dtype !== "float32") kernels.narrowRows(dtype, TOTAL, 0, WORDS, 0, 1, length);
    target.set(new Uint8Array(buffer, dtype === "float32" ? TOTAL : WORDS, length * bytes), first);
  }
}

function plainKernels(): TileKernels {
  const buffer = new ArrayBuffer(TILE_PAGES * 65536);
  const floats = new Float32Array(buffer);
  return {
    buffer,
    kernels: {
      ...plainConverter(() => buffer),
      combine(op, total, term, length) {
        const [a, b] = [total / 4, term / 4];
        if (op === "sum") for (let i = 0; i < length; i++) floats[a + i]! += floats[b + i]!;
        else for (let i = 0; i < length; i++) floats[a + i] = Math.max(floats[a + i]!, floats[b + i]!);
      },
      divide(total, length, divisor) {
        const first = total / 4;
        for (let i = 0; i < length; i++) floats[first + i]! /= divisor;
      },
    },
  };
}

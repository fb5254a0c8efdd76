/**
 * What must be copied between a gathered buffer (every rank's shard, one after the other) and whole parameters. Follows
 * from the Shard's answers alone.
 *
 * @module
 */
import type { CopyBox } from "../contracts/kernels.ts";
import type { Shard } from "../contracts/shard.ts";
import { numelOf, stridesOf } from "../tensor/shape.ts";

/** Copies between one parameter and the gathered buffer. */
export interface ParameterMoves {
  /** From the gathered buffer to the whole parameter. */
  readonly out: readonly CopyBox[];
  /** From the whole parameter (its gradient) to the gathered buffer. */
  readonly in: readonly CopyBox[];
  /** Set when the parameter lies in the gathered buffer as it is: its first element there. No copy is needed then. */
  readonly alias: number | undefined;
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, x, i) => sum + x * b[i]!, 0);
}

/** Whether a box's elements are contiguous in a row-major tensor of `shape`. */
function contiguous(sizes: readonly number[], shape: readonly number[]): boolean {
  let d = shape.length - 1;
  while (d >= 0 && sizes[d] === shape[d]) d--;
  return sizes.slice(0, Math.max(d, 0)).every((extent) => extent === 1);
}

/** Where a shard's elements lie in a gathered buffer that carries more than them. */
export interface GatheredPlace {
  /** First element of rank 0's shard. */
  readonly start: number;
  /** Elements from one rank's shard to the next one's. */
  readonly stride: number;
}

/** Moves of every parameter of a shard, and whether its place has padding that no box covers. */
export function planMoves(
  shard: Shard,
  { start, stride }: GatheredPlace = { start: 0, stride: shard.shardNumel },
): {
  readonly moves: readonly ParameterMoves[];
  readonly padded: boolean;
} {
  const boxes: { out: CopyBox[]; in: CopyBox[]; alias: number | undefined; aliased: boolean }[] =
    shard.parameters.map(() => ({ out: [], in: [], alias: undefined, aliased: true }));
  let covered = 0;
  for (let rank = 0; rank < shard.worldSize; rank++) {
    for (const piece of shard.pieces(rank)) {
      const elements = numelOf(piece.sizes);
      if (elements === 0) continue;
      covered += elements;
      const { shape } = shard.parameters[piece.parameter]!;
      const entry = boxes[piece.parameter]!;
      const strides = stridesOf(shape);
      const gathered = {
        offset: start + rank * stride + piece.shardOffset,
        strides: stridesOf(piece.sizes),
      };
      const whole = { offset: dot(piece.offsets, strides), strides };
      const box = (source: typeof whole, target: typeof whole): CopyBox => ({
        sizes: piece.sizes,
        sourceOffset: source.offset,
        sourceStrides: source.strides,
        targetOffset: target.offset,
        targetStrides: target.strides,
      });
      entry.out.push(box(gathered, whole));
      entry.in.push(box(whole, gathered));
      const first = gathered.offset - whole.offset;
      entry.aliased &&= contiguous(piece.sizes, shape) && (entry.alias ?? first) === first;
      entry.alias = first;
    }
  }
  return {
    moves: boxes.map(({ out, in: into, alias, aliased }) => ({
      out,
      in: into,
      alias: aliased ? (alias ?? 0) : undefined,
    })),
    padded: covered < shard.worldSize * shard.shardNumel,
  };
}

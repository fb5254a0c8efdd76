/**
 * FSDP1's layout: the parameters of a unit, flattened into one, are cut into equal ranges.
 *
 * As FlatParamHandle cuts its 1-D tensor of n elements (torch/distributed/fsdp/_flat_param.py): rank r holds
 * [r * S, min((r + 1) * S, n)) with S = ceil(n / ranks), and stores S elements, padded on the right. What was gathered
 * is the flat parameter itself, so parameters are views of it: nothing is copied out.
 *
 * @module
 */
import type { DType } from "../../core/contracts/dtype.ts";
import type { Box, ParameterSpec, Shard, ShardFactory, ShardPiece } from "../../core/contracts/shard.ts";
import { numelOf } from "../../core/tensor/shape.ts";
import { alignmentOf, type FlatLayout, type FlatRange, flatLayout, rangesIn } from "./flat-layout.ts";

/** What the layout of a unit depends on beside its parameters. */
export interface FlatShardOptions {
  /** Each parameter begins at a multiple of 16 bytes. Otherwise they follow each other without gaps. */
  readonly useOrigParams: boolean;
  /** What gathered parameters are in, if not in their own dtype. */
  readonly paramDtype?: DType | undefined;
}

/** Where a unit's parameters lie in its flat parameter. It throws what `flatLayout` throws. */
export function layoutOf(parameters: readonly ParameterSpec[], options: FlatShardOptions): FlatLayout {
  const dtype = options.paramDtype ?? parameters[0]?.dtype;
  return flatLayout(parameters, options.useOrigParams && dtype !== undefined ? alignmentOf(dtype) : 1);
}

/** How units are cut. It throws what `flatLayout` throws. */
export function flatShard(options: FlatShardOptions): ShardFactory {
  return (parameters, worldSize) => shardFlat(layoutOf(parameters, options), worldSize);
}

/** Cuts a flat parameter over `worldSize` ranks. */
export function shardFlat(layout: FlatLayout, worldSize: number): Shard {
  const { parameters, starts, numel } = layout;
  const shardNumel = Math.ceil(numel / worldSize);
  const rangesOf = (rank: number): FlatRange[] =>
    rangesIn(layout, rank * shardNumel, Math.min((rank + 1) * shardNumel, numel));
  return Object.freeze({
    parameters,
    worldSize,
    shardNumel,
    pieces: (rank: number): ShardPiece[] =>
      rangesOf(rank).flatMap(({ parameter, begin, end }) => {
        let shardOffset = starts[parameter]! + begin - rank * shardNumel;
        return rangeBoxes(parameters[parameter]!.shape, begin, end).map((box) => {
          const piece = { parameter, ...box, shardOffset };
          shardOffset += numelOf(box.sizes);
          return piece;
        });
      }),
    localShape: (parameter: number, rank: number): number[] => {
      const begin = rank * shardNumel - starts[parameter]!;
      const held = (position: number) =>
        Math.min(Math.max(position, 0), numelOf(parameters[parameter]!.shape));
      return [held(begin + shardNumel) - held(begin)];
    },
  });
}

/**
 * Elements `[begin, end)` of a row-major tensor as boxes, in order: at most 2n - 1 for n dims. Whole rows make one box;
 * what is left of the first and of the last row is cut the same way.
 */
export function rangeBoxes(shape: readonly number[], begin: number, end: number): Box[] {
  if (begin >= end) return [];
  if (shape.length === 0) return [{ offsets: [], sizes: [] }];
  if (shape.length === 1) return [{ offsets: [begin], sizes: [end - begin] }];
  const rest = shape.slice(1);
  const row = numelOf(rest);
  const within = (index: number, from: number, to: number): Box[] =>
    rangeBoxes(rest, from, to).map(({ offsets, sizes }) => ({
      offsets: [index, ...offsets],
      sizes: [1, ...sizes],
    }));
  const [first, last] = [Math.floor(begin / row), Math.floor(end / row)];
  const [head, tail] = [begin % row, end % row];
  if (first === last) return within(first, head, tail);
  const whole = head === 0 ? first : first + 1;
  return [
    ...(head === 0 ? [] : within(first, head, row)),
    ...(whole === last ? [] : [{ offsets: [whole, ...rest.map(() => 0)], sizes: [last - whole, ...rest] }]),
    ...within(last, 0, tail),
  ];
}

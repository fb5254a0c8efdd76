/**
 * Shard: how the parameters of one unit are laid out over the ranks of a group. Pure arithmetic, no data.
 *
 * It answers for every rank which boxes of which parameter it holds and where they lie in that rank's flat shard.
 * From these answers alone follow the gather and scatter copies, the optimizer's view, checkpoints and resharding;
 * nothing else knows which version of FSDP it is.
 *
 * The law:
 * - Every rank's shard has `shardNumel` elements, padding included; padding never carries a value into a result.
 * - Over all ranks the boxes of one parameter are disjoint and cover it exactly.
 * - A box is stored row-major and contiguous from `shardOffset`.
 * - `pieces(rank)` costs no more than that rank's own pieces: nothing needs all ranks at once.
 *
 * @module
 */
import type { DType } from "./dtype.ts";

/** A half-open box of a tensor: `offsets[d] <= index[d] < offsets[d] + sizes[d]`. */
export interface Box {
  readonly offsets: readonly number[];
  readonly sizes: readonly number[];
}

/** What a layout must know of a parameter. */
export interface ParameterSpec {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/** A box of one parameter and where it lies in a rank's shard. */
export interface ShardPiece extends Box {
  /** Index into `parameters`. */
  readonly parameter: number;
  /** First element in the rank's flat shard. */
  readonly shardOffset: number;
}

/** Layout of one unit. */
export interface Shard {
  readonly parameters: readonly ParameterSpec[];
  readonly worldSize: number;
  /** Elements that each rank stores, padding included. */
  readonly shardNumel: number;
  /** What `rank` holds, ordered by `shardOffset`. Parameters of which it holds nothing are absent. */
  pieces(rank: number): readonly ShardPiece[];
  /** Shape of the rank's own tensor of a parameter: a box's sizes (dim-sharding) or `[numel]` (flat ranges); a zero extent when it holds nothing. */
  localShape(parameter: number, rank: number): readonly number[];
}

/** Makes a layout for the parameters of a unit over `worldSize` ranks. @throws ShapeError for parameters that it cannot cut. */
export type ShardFactory = (parameters: readonly ParameterSpec[], worldSize: number) => Shard;

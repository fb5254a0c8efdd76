/**
 * Flat layout: where the parameters of a unit lie in its one flat parameter, as PyTorch's FlatParamHandle
 * (torch/distributed/fsdp/_flat_param.py) lays them out: row-major, one after the other, in the order in which modules
 * define them. With `useOrigParams` each begins at a multiple of 16 bytes; then padding lies between them.
 *
 * Positions and ranges are half-open, unlike PyTorch's shard metadata, whose last index is inclusive.
 *
 * @module
 */
import { DTYPES, type DType } from "../../core/contracts/dtype.ts";
import { ConfigError, ShapeError } from "../../core/contracts/errors.ts";
import type { ParameterSpec } from "../../core/contracts/shard.ts";
import { numelOf } from "../../core/tensor/shape.ts";

/** Bytes at whose multiples parameters begin. */
const ALIGNMENT_BYTES = 16;

/** Parameters in a flat parameter. */
export interface FlatLayout {
  readonly parameters: readonly ParameterSpec[];
  /** First element of each parameter. */
  readonly starts: readonly number[];
  /** Elements in all, padding between parameters included. */
  readonly numel: number;
}

/** A part of one parameter: its elements `[begin, end)`, row-major. */
export interface FlatRange {
  /** Index into `parameters`. */
  readonly parameter: number;
  readonly begin: number;
  readonly end: number;
}

/** Elements that 16 bytes of a dtype hold: with `useOrigParams` each parameter begins at a multiple of them. */
export function alignmentOf(dtype: DType): number {
  return ALIGNMENT_BYTES / DTYPES[dtype].bytes;
}

/**
 * Lays parameters out in one flat parameter.
 *
 * @param alignment every parameter but the first begins at a multiple of so many elements; 1 leaves no gaps.
 * @throws ShapeError when there are no parameters.
 * @throws ConfigError when they are not of one floating dtype.
 */
export function flatLayout(parameters: readonly ParameterSpec[], alignment: number): FlatLayout {
  const first = parameters[0];
  if (first === undefined) throw new ShapeError("Flattening failed: no parameters given, one or more needed");
  const starts: number[] = [];
  let numel = 0;
  for (const { name, shape, dtype } of parameters) {
    if (dtype !== first.dtype) {
      throw new ConfigError(
        `Flattening failed: parameter "${name}" is ${dtype}, "${first.name}" of the same unit ${first.dtype}, allowed is one dtype a unit`,
      );
    }
    if (!DTYPES[dtype].floating) {
      throw new ConfigError(
        `Flattening failed: parameter "${name}" is ${dtype}, allowed are floating dtypes, put it into ignoredStates`,
      );
    }
    numel = Math.ceil(numel / alignment) * alignment;
    starts.push(numel);
    numel += numelOf(shape);
  }
  return Object.freeze({ parameters, starts, numel });
}

/** The parts of parameters that lie in `[begin, end)` of the flat parameter, in order; padding is in none. */
export function rangesIn(layout: FlatLayout, begin: number, end: number): FlatRange[] {
  const { parameters, starts } = layout;
  const ranges: FlatRange[] = [];
  for (let i = lastAtOrBefore(starts, begin); i < starts.length && starts[i]! < end; i++) {
    const start = starts[i]!;
    const from = Math.max(begin - start, 0);
    const to = Math.min(end - start, numelOf(parameters[i]!.shape));
    if (from < to) ranges.push({ parameter: i, begin: from, end: to });
  }
  return ranges;
}

/** Index of the last start that is not after `position`; 0 when all are. */
function lastAtOrBefore(starts: readonly number[], position: number): number {
  let [low, high] = [0, starts.length - 1];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (starts[middle]! <= position) low = middle;
    else high = middle - 1;
  }
  return low;
}

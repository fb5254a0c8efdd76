/**
 * Values of a parameter, or of what an optimizer keeps of it, box by box: into whole arrays and out of them, on this rank
 * or from the first rank to each that holds a box.
 *
 * @module
 */
import type { HostArray } from "../contracts/dtype.ts";
import { newHostArray } from "../contracts/dtype.ts";
import type { Box } from "../contracts/shard.ts";
import { forEachRun } from "../nn/init.ts";
import type { Parameter } from "../nn/parameter.ts";
import { numelOf, type Shape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { broadcastFromFirst, isFirst, type RankGroups } from "./rank-groups.ts";

/** The elements of a box of a whole array, row-major. */
export function boxOf(shape: Shape, whole: HostArray, box: Box): HostArray {
  let contiguous: HostArray | undefined;
  const total = numelOf(box.sizes);
  forEachRun(shape, box, (start, _, length) => {
    if (length === total) contiguous = whole.subarray(start, start + length);
  });
  if (contiguous !== undefined) return contiguous;
  const out = whole.slice(0, total);
  forEachRun(shape, box, (start, offset, length) => {
    out.set(whole.subarray(start, start + length) as never, offset);
  });
  return out;
}

/** Writes this rank's boxes of a whole array to `values`, which is shaped like the parameter's `local`. */
export function writeWhole(parameter: Parameter, values: Tensor, whole: HostArray): void {
  for (const piece of parameter.pieces) {
    writeBox(values, piece.localOffset, boxOf(parameter.shape, whole, piece));
  }
  parameter.updated();
}

/**
 * Fills `values` on every rank with what the first rank has: each box is sent by itself, and kept where it belongs.
 * Collective over `groups`. No rank holds more than its own and one box.
 *
 * @param source gives the elements of a box; asked on the first rank alone.
 */
export async function sendBoxes(
  parameter: Parameter,
  values: Tensor,
  groups: RankGroups | undefined,
  source: (box: Box) => Promise<HostArray>,
): Promise<void> {
  const { manager } = parameter;
  const send = async (box: Box): Promise<HostArray> => {
    const data = isFirst(groups) ? await source(box) : newHostArray(values.dtype, numelOf(box.sizes));
    await broadcastFromFirst(groups, data);
    return data;
  };
  const ranks = manager?.group.size ?? 1;
  for (let rank = 0; rank < ranks; rank++) {
    for (const piece of manager?.pieces(rank) ?? parameter.pieces) {
      const data = await send(piece);
      if (manager === undefined || rank === manager.group.rank) writeBox(values, piece.localOffset, data);
    }
  }
  parameter.updated();
}

function writeBox(values: Tensor, offset: number, data: HostArray): void {
  const span = { ...values.span, offset: values.offset + offset, length: data.length };
  values.device.backend.write(span, data);
}

/**
 * Layout of a reduction: the parameters of a unit that take part, without gaps. Every rank's slice has room for the
 * most that any rank holds of them.
 *
 * @module
 */
import type { CopyBox } from "../contracts/kernels.ts";
import { numelOf, stridesOf } from "../tensor/shape.ts";
import type { UnitShards } from "./unit-shards.ts";

/** Where gradients lie in a reduction. */
export interface ReduceLayout {
  /** Indices of the parameters that take part, ascending. */
  readonly members: readonly number[];
  /** Elements of each rank's slice. */
  readonly numel: number;
  /** Whether some elements belong to no parameter. */
  readonly padded: boolean;
  /** For each member: from its whole gradient to the input [ranks, numel]. */
  readonly boxes: readonly (readonly CopyBox[])[];
  /** For each member: where this rank's part begins in its slice. */
  readonly offsets: readonly number[];
}

/** Lays out a reduction of `members`. */
export function reduceLayout(shards: UnitShards, members: readonly number[]): ReduceLayout {
  const { group, parameters } = shards;
  const held = Array.from({ length: group.size }, (_, rank) => {
    const pieces = shards.piecesOf(rank);
    return members.map((member) => pieces[member]!);
  });
  const sizes = held.map((ofRank) => ofRank.flat().reduce((sum, { sizes }) => sum + numelOf(sizes), 0));
  const numel = Math.max(...sizes);
  const boxes: CopyBox[][] = members.map(() => []);
  const offsets: number[] = [];
  for (const [rank, ofRank] of held.entries()) {
    let offset = 0;
    for (const [m, pieces] of ofRank.entries()) {
      if (rank === group.rank) offsets.push(offset);
      const sourceStrides = stridesOf(parameters[members[m]!]!.shape);
      for (const { offsets, sizes } of pieces) {
        boxes[m]!.push({
          sizes,
          sourceOffset: offsets.reduce((sum, at, d) => sum + at * sourceStrides[d]!, 0),
          sourceStrides,
          targetOffset: rank * numel + offset,
          targetStrides: stridesOf(sizes),
        });
        offset += numelOf(sizes);
      }
    }
  }
  return { members, numel, padded: sizes.some((size) => size < numel), boxes, offsets };
}

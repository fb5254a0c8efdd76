/**
 * Who is in which subgroup, as MPI_Comm_split has it.
 *
 * @module
 */

/** One rank's place after a split. */
export interface SplitPlace {
  /** Ranks of the parent group, in the order of the subgroup. */
  readonly members: readonly number[];
  /** This rank within the subgroup. */
  readonly rank: number;
}

/** The place of `rank`, from all ranks' `[color, key]` pairs in rank order. */
export function splitPlace(pairs: Float64Array, rank: number): SplitPlace {
  const color = pairs[2 * rank];
  const members: number[] = [];
  for (let r = 0; 2 * r < pairs.length; r++) if (pairs[2 * r] === color) members.push(r);
  members.sort((a, b) => pairs[2 * a + 1]! - pairs[2 * b + 1]! || a - b);
  return { members, rank: members.indexOf(rank) };
}

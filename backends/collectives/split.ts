/**
 * Who is in which subgroup, as MPI_Comm_split has it. Ranks gather one row each: color, key, and, from rank 0, where
 * the memory for all subgroups is, for transports that need some.
 *
 * @module
 */

/** Numbers in a row. */
export const SPLIT_FIELDS = 3;

/** One rank's place after a split. */
export interface SplitPlace {
  /** Ranks of the parent group, in the order of the subgroup. */
  readonly members: readonly number[];
  /** This rank within the subgroup. */
  readonly rank: number;
  /** Sizes of the subgroups with a lower color, in the order of colors. */
  readonly sizesBefore: readonly number[];
}

/** The place of `rank`, from all ranks' rows in rank order. */
export function splitPlace(table: Float64Array, rank: number): SplitPlace {
  const colorOf = (r: number): number => table[SPLIT_FIELDS * r]!;
  const keyOf = (r: number): number => table[SPLIT_FIELDS * r + 1]!;
  const ranks = Array.from({ length: table.length / SPLIT_FIELDS }, (_, r) => r);
  const own = colorOf(rank);
  const members = ranks.filter((r) => colorOf(r) === own).sort((a, b) => keyOf(a) - keyOf(b) || a - b);
  const sizes = new Map<number, number>();
  for (const r of ranks) if (colorOf(r) < own) sizes.set(colorOf(r), (sizes.get(colorOf(r)) ?? 0) + 1);
  const sizesBefore = [...sizes].sort(([a], [b]) => a - b).map(([, size]) => size);
  return { members, rank: members.indexOf(rank), sizesBefore };
}

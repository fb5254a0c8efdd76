/**
 * Which rank of a target takes over which file of a source.
 *
 * @module
 */
import type { CheckpointSource } from "./source.ts";

/** Larger boxes are cut: what one rank holds in memory while it writes. */
export const MAX_BOX_BYTES: number = 256 * 1024 * 1024;

/** Ranks by the source's files. */
export interface Holders {
  /** By index of the file. */
  readonly ranks: readonly number[];
  readonly worldSize: number;
}

/** `rank-00003.safetensors`, `__3_0.distcp`, also in a folder. */
const RANK = /(?:^|\/)(?:rank-|__)(\d{1,6})(?=[._])/;

/** Files named after a rank go to that rank; where names say nothing, all go to the first. */
export function holdersOf(source: CheckpointSource): Holders {
  const ranks = source.files.map(({ name }) => Number(RANK.exec(name)?.[1] ?? 0));
  const named = ranks.reduce((most, rank) => Math.max(most, rank + 1), 1);
  // A stray file with a huge number must not make as many ranks.
  if (named > Math.max(source.files.length, source.worldSize ?? 1)) {
    return { ranks: source.files.map((_, i) => i), worldSize: source.files.length };
  }
  return { ranks, worldSize: Math.max(named, source.rankValues.length) };
}

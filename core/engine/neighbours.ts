/**
 * Neighbours: a group's ranks in runs of k consecutive ones, which keep gathered parameters among them.
 *
 * @module
 */
import type { Collective } from "../contracts/collective.ts";

/** Runs of each group, by their length. */
const known = new WeakMap<Collective, Map<number, Promise<Collective>>>();

/** The run of `count` ranks that this rank is in; `count` divides the group's size. Collective over the group. */
export function neighboursOf(group: Collective, count: number): Promise<Collective> {
  const runs = known.get(group) ?? new Map<number, Promise<Collective>>();
  known.set(group, runs);
  const run = runs.get(count) ?? group.split(Math.floor(group.rank / count), group.rank % count);
  runs.set(count, run);
  return run;
}

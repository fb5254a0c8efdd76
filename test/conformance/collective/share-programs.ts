/**
 * The rank programs of the conformance suite about shared inputs.
 *
 * @module
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { SharedInputs } from "../../../core/contracts/collective.ts";
import { ShapeError } from "../../../core/contracts/errors.ts";
import type { RankContext } from "../../../core/contracts/transport.ts";
import { type Outcome, outcome, workOf } from "./outcome.ts";

/** Rank 1 throws while all hold what it shared. */
export async function failingSharer(context: RankContext): Promise<void> {
  const { collective } = context;
  const window = collective.window(8);
  window.bytes.fill(7);
  const shared = await collective.share(window.bytes);
  await collective.barrier().wait();
  if (collective.rank === 1) throw new ShapeError("weights do not fit: 3 given, 4 needed");
  const seen = await outcome({ wait: () => shared.released });
  const later = await outcome(workOf(collective.share(window.bytes)));
  const sizes = shared.inputs.map((input) => input.slice().length);
  shared.release();
  context.report({ seen, later, sizes });
  await collective.barrier().wait();
}

/** Rank 1 cannot fill what it offers to share. */
export async function unfilledShare({ collective }: RankContext): Promise<readonly Outcome[]> {
  const filled = async (): Promise<void> => {
    await sleep(1);
    if (collective.rank === 1) throw new ShapeError("nothing to share");
  };
  const sharing = outcome(workOf(collective.share(new Float32Array(3), filled())));
  return [await sharing, await outcome(collective.barrier())];
}

/** Rank 1 leaves without releasing what was shared; the others look at it and release it after that. */
export async function closedSharer({ collective }: RankContext): Promise<readonly number[]> {
  const subgroup = await collective.split(0, 0);
  const shared = await subgroup.share(Int32Array.of(10 + collective.rank));
  if (collective.rank === 1) await subgroup.close();
  await collective.barrier().wait();
  const seen = shared.inputs.map((input) => Number(input[0]));
  if (collective.rank !== 1) shared.release();
  await shared.released;
  await collective.barrier().wait();
  return seen;
}

/**
 * More shares held than operations can be under way, with operations between them; released last first on odd ranks.
 * They end in the order of their calls.
 */
export async function manyShares(
  { collective }: RankContext,
  args: { readonly count: number },
): Promise<readonly number[]> {
  const { rank, size } = collective;
  const held: { readonly shared: SharedInputs; readonly i: number }[] = [];
  let wrong = 0;
  for (let i = 0; i < args.count; i++) {
    const shared = await collective.share(Float64Array.of(i, rank));
    const total = Float64Array.of(i);
    await collective.allReduce(total, "sum", "float64").wait();
    if (total[0] !== i * size) wrong++;
    held.push({ shared, i });
  }
  const ended: number[] = [];
  const all = Promise.all(held.map(({ shared, i }) => shared.released.then(() => ended.push(i))));
  for (const { shared, i } of rank % 2 === 0 ? held : held.reverse()) {
    for (const [peer, input] of shared.inputs.entries()) if (input[0] !== i || input[1] !== peer) wrong++;
    shared.release();
    shared.release();
    if (i % 7 === rank % 7) await sleep(1);
  }
  await all;
  return [wrong, ...ended];
}

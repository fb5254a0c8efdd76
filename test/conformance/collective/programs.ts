/**
 * The rank programs of the conformance suite. They return what they found; the suite judges.
 *
 * @module
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Collective, ReductionOp, Work } from "../../../core/contracts/collective.ts";
import { type DType, type HostArray, newHostArray } from "../../../core/contracts/dtype.ts";
import { ShapeError } from "../../../core/contracts/errors.ts";
import type { RankContext } from "../../../core/contracts/transport.ts";
import { digest } from "./oracle.ts";
import { described, type Outcome, outcome, workOf } from "./outcome.ts";
import {
  type Allocate,
  allocateIn,
  allocateWindows,
  type OperationSpec,
  type StartedOperation,
  startOperation,
} from "./random-operation.ts";

/** What a rank found of a sequence of operations. */
export interface SequenceReport {
  readonly problems: readonly string[];
  /** Of all results of operations whose result is the same on every rank. */
  readonly common: string;
  /** Of all results. */
  readonly own: string;
}

/** Every operation at every length, for given dtypes and reductions, each awaited at once. */
export async function everyOperation(
  context: RankContext,
  args: {
    readonly dtypes: readonly DType[];
    readonly ops: readonly ReductionOp[];
    readonly lengths: readonly number[];
  },
): Promise<SequenceReport> {
  const specs: OperationSpec[] = [];
  for (const length of args.lengths) {
    for (const dtype of args.dtypes) {
      const base = { dtype, length, op: "sum", root: 1, seed: specs.length, inPlace: false } as const;
      specs.push({ ...base, name: "allGather" }, { ...base, name: "allGather", inPlace: true });
      specs.push({ ...base, name: "broadcast" }, { ...base, name: "barrier" });
      specs.push({ ...base, name: "share" }, { ...base, name: "share", inPlace: true });
      for (const op of args.ops) {
        specs.push({ ...base, name: "reduceScatter", op }, { ...base, name: "allReduce", op });
      }
    }
  }
  // Where there are several kinds of memory, they alternate, and every operation meets all of them.
  const kinds = allocators(context);
  const kindOf = (index: number): Allocate =>
    kinds[(index + Math.floor(index / specs.length)) % kinds.length]!;
  const sequence = kinds.flatMap(() => specs);
  return runSequence(context.collective, sequence, 1, async () => {}, kindOf);
}

/** Operations started ahead, up to `ahead` of them outstanding, with pauses that differ from rank to rank. */
export async function randomSequence(
  context: RankContext,
  args: { readonly specs: readonly OperationSpec[]; readonly ahead: number; readonly seed: number },
): Promise<SequenceReport> {
  let state = (args.seed * 7919 + context.rank * 104729) >>> 0;
  const pause = async (): Promise<void> => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    if (state >>> 30 === 0) await sleep((state >>> 8) % 3);
  };
  const kinds = allocators(context);
  const kindOf = (index: number): Allocate => kinds[index % kinds.length]!;
  return runSequence(context.collective, args.specs, args.ahead, pause, kindOf);
}

/** Subgroups of uneven size, in reversed order; a mesh of two dimensions; subgroups of subgroups, all in use at once. */
export async function subgroups({ collective }: RankContext): Promise<unknown> {
  const { rank, size } = collective;
  // Colors 0, 1, 1, 2, 2, 2, ...: groups of 1, 2, 3, ... ranks.
  const uneven = await collective.split(Math.floor((Math.sqrt(8 * rank + 1) - 1) / 2), -rank);
  const row = await collective.split(Math.floor(rank / 2), rank);
  const column = await collective.split(rank % 2, rank);
  const nested = await column.split(column.rank % 2, 0);
  const works: Work[] = [];
  const gather = (group: Collective): Int32Array => {
    const output = new Int32Array(group.size);
    works.push(group.allGather(output, Int32Array.of(rank)));
    return output;
  };
  const found = { uneven: gather(uneven), row: gather(row), column: gather(column), nested: gather(nested) };
  const total = Float32Array.of(rank);
  works.push(row.allReduce(total, "sum", "float32"));
  works.push(column.allReduce(total, "sum", "float32"));
  // Awaited against the order of their start.
  for (const work of works.slice(0, 4).reverse()) await work.wait();
  for (const work of works) await work.wait();
  const ranks = { uneven: uneven.rank, row: row.rank, column: column.rank, nested: nested.rank };
  await Promise.all([nested.close(), uneven.close()]);
  await collective.barrier().wait();
  return { ...found, ranks, size };
}

/** Splits that are under way together with each other and with operations called at different times on each rank. */
export async function splitsUnderWay({ collective }: RankContext): Promise<readonly number[]> {
  const { rank, size } = collective;
  const splits = [collective.split(rank % 2, 0), collective.split(0, -rank)];
  await sleep(rank % 3);
  const total = Int32Array.of(1);
  await collective.allReduce(total, "sum", "int32").wait();
  const [parity, reversed] = await Promise.all(splits);
  await reversed!.broadcast(total, size - 1).wait();
  return [total[0]!, parity!.size, parity!.rank, reversed!.rank];
}

/** Row and column groups used one after the other by a mesh reduction: every rank ends with the sum of all. */
export async function meshReduction({ collective }: RankContext): Promise<number> {
  const row = await collective.split(Math.floor(collective.rank / 2), 0);
  const column = await collective.split(collective.rank % 2, 0);
  const shard = new Float32Array(1);
  const data = Float32Array.of(collective.rank + 1, collective.rank + 1);
  await row.reduceScatter(shard, data, "sum", "float32").wait();
  await column.allReduce(shard, "sum", "float32").wait();
  await row.allGather(data, shard).wait();
  return data[0]!;
}

/** The last rank calls something else. */
export async function mismatch(
  { collective }: RankContext,
  args: { readonly how: "operation" | "length" | "dtype" | "op" | "root" | "share" },
): Promise<readonly Outcome[]> {
  await collective.barrier().wait();
  const odd = collective.rank === collective.size - 1;
  const data = new Float32Array(odd && args.how === "length" ? 5 : 4);
  const start: Readonly<Record<typeof args.how, () => Work>> = {
    operation: () => (odd ? collective.barrier() : collective.broadcast(data, 0)),
    length: () => collective.allReduce(data, "sum", "float32"),
    dtype: () => collective.allReduce(data, "sum", odd ? "int32" : "float32"),
    op: () => collective.allReduce(data, odd ? "max" : "sum", "float32"),
    root: () => collective.broadcast(data, odd ? 1 : 0),
    share: () => workOf(collective.share(new Uint16Array(odd ? 1 : 2))),
  };
  return [await outcome(start[args.how]()), await outcome(collective.barrier())];
}

/** The last rank aborts while the others wait. */
export async function abort({ collective }: RankContext): Promise<readonly Outcome[]> {
  const subgroup = await collective.split(0, 0);
  const shared = await subgroup.share(new Float32Array(1));
  // The group that it was split from goes on.
  await collective.barrier().wait();
  if (collective.rank === collective.size - 1) subgroup.abort("enough");
  const pending = await outcome(subgroup.barrier());
  const held = await outcome({ wait: () => shared.released });
  const later = await outcome(subgroup.allReduce(new Float32Array(1), "sum", "float32"));
  shared.release();
  await collective.barrier().wait();
  return [pending, held, later, await outcome(workOf(subgroup.share(new Float32Array(1))))];
}

/** Rank 1 throws while the others wait, in a subgroup where there is one. */
export async function failingRank(context: RankContext, args: { readonly computes: boolean }): Promise<void> {
  const { collective } = context;
  const subgroup = await collective.split(0, 0);
  if (collective.rank === 1) throw new ShapeError("weights do not fit: 3 given, 4 needed");
  if (args.computes && collective.rank === 0) for (const end = Date.now() + 60_000; Date.now() < end; );
  const seen = await outcome(subgroup.barrier());
  const later = await outcome(collective.barrier());
  context.report({ seen, later });
  await collective.barrier().wait();
}

/** Rank 1 returns while the others still have a call to make. */
export async function earlyReturn({ collective }: RankContext): Promise<readonly Outcome[]> {
  const subgroup = await collective.split(0, 0);
  await subgroup.barrier().wait();
  if (collective.rank === 1) return [];
  return [await outcome(subgroup.barrier()), await outcome(collective.barrier())];
}

/** Rank 1 gives a buffer of the wrong size: it is told at the call, the others by theirs. */
export async function wrongArguments({ collective }: RankContext): Promise<Outcome> {
  const length = collective.rank === 1 ? 1 : collective.size;
  try {
    return await outcome(collective.allGather(new Float32Array(length), new Float32Array(1)));
  } catch (error) {
    return described(error);
  }
}

/** More operations outstanding than any ring has room for, all on one buffer of parameters, awaited last first. */
export async function manyOutstanding(
  { collective }: RankContext,
  args: { readonly count: number },
): Promise<number> {
  const buffers = Array.from({ length: args.count }, (_, i) => Float64Array.of(i, collective.rank));
  const works = buffers.map((data) => collective.allReduce(data, "sum", "float64"));
  for (const work of works.reverse()) await work.wait();
  const { size } = collective;
  const wrong = buffers.filter((data, i) => data[0] !== i * size || data[1] !== (size * (size - 1)) / 2);
  return wrong.length;
}

/** Nothing may follow close. */
export async function callAfterClose({ collective }: RankContext): Promise<Outcome> {
  await collective.barrier().wait();
  await collective.close();
  try {
    return await outcome(collective.barrier());
  } catch (error) {
    return described(error);
  }
}

/** What a rank knows of its job. */
export async function introduce(context: RankContext, args: unknown): Promise<unknown> {
  context.report({ from: context.rank });
  const { rank, worldSize, localWorldSize, collective } = context;
  return { rank, worldSize, localWorldSize, args, collective: [collective.rank, collective.size] };
}

/** Steps until the ranks agree that a stop was requested. */
export async function runUntilStopped({ collective, stopRequested, report }: RankContext): Promise<number> {
  for (let step = 1; ; step++) {
    report(step);
    const stop = Int32Array.of(stopRequested() ? 1 : 0);
    await collective.allReduce(stop, "max", "int32").wait();
    if (stop[0] === 1) return step;
    await sleep(1);
  }
}

/** Never returns: one rank waits for nothing at all, the others for it. */
export async function waitForEver({ collective, report, rank }: RankContext): Promise<void> {
  report("waiting");
  if (rank === 0) await new Promise(() => {});
  await collective.barrier().wait();
}

/** The last rank throws an error of a class that is not the project's. */
export async function foreignError(
  { rank, worldSize, collective }: RankContext,
  args: { readonly how: "builtin" | "own class" | "string" },
): Promise<void> {
  if (rank < worldSize - 1) return collective.barrier().wait();
  if (args.how === "builtin") throw new RangeError("index 7 is outside");
  if (args.how === "string") throw "just text";
  throw new (class LossError extends Error {
    override readonly name = "LossError";
  })("loss is NaN");
}

async function runSequence(
  collective: Collective,
  specs: readonly OperationSpec[],
  ahead: number,
  pause: () => Promise<void>,
  allocate: (index: number) => Allocate,
): Promise<SequenceReport> {
  const problems: string[] = [];
  let common = "";
  let own = "";
  const pending: (() => Promise<void>)[] = [];
  const held: StartedOperation[] = [];
  const ending: Promise<void>[] = [];
  const look = (operation: StartedOperation): void => {
    const problem = operation.check();
    if (problem !== undefined) problems.push(problem);
  };
  /** Ranks release their shares in orders of their own, after another look at them. */
  const release = (): void => {
    const [operation] = held.splice(collective.rank % held.length, 1);
    look(operation!);
    ending.push(operation!.release!());
  };
  for (const [index, spec] of specs.entries()) {
    await pause();
    const operation = startOperation(collective, spec, allocate(index));
    pending.push(async () => {
      await operation.work.wait();
      look(operation);
      own = digest(operation.result, own);
      if (spec.name !== "reduceScatter") common = digest(operation.result, common);
      if (operation.release) held.push(operation);
      if (held.length > 3) release();
    });
    if (pending.length >= ahead) await pending.shift()!();
  }
  for (const finish of pending) await finish();
  while (held.length > 0) release();
  await Promise.all(ending);
  return { problems, common, own };
}

/** Private memory, and, where ranks have it, shared memory and windows. */
function allocators({ hostMemory, collective }: RankContext): readonly Allocate[] {
  const priv: Allocate = (dtype, length): HostArray => newHostArray(dtype, length);
  return hostMemory ? [priv, allocateIn(hostMemory), allocateWindows(collective)] : [priv];
}

/**
 * A collective that is late, as the law of `core/contracts/collective.ts` lets it be: calls begin some time after they
 * were made, inputs are read then, and outputs hold nothing that makes sense until the call is done. Whoever does not wait
 * for it computes something else.
 *
 * @module
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Collective, SharedInputs, Work } from "../../../core/contracts/collective.ts";
import { bytesOf, type HostArray } from "../../../core/contracts/dtype.ts";

/** Calls that can be late. */
export type Delayable = "allGather" | "reduceScatter" | "allReduce" | "broadcast" | "share";

/** What is late, and how much: other pauses for every seed. */
export interface Delay {
  readonly seed: number;
  readonly calls: readonly Delayable[];
}

/** A group whose calls are late, as those of groups split from it. Ranks are late by different times. */
export function delayed(inner: Collective, delay: Delay): Collective {
  const pause = pauses(delay.seed * 7919 + inner.rank * 104729);
  /** When the call before this one has begun: calls keep their order. */
  let begun: Promise<unknown> = Promise.resolve();
  const inOrder = <T>(kind: Delayable | undefined, begin: () => T): Promise<T> => {
    const late = kind !== undefined && delay.calls.includes(kind);
    const started = begun.then(() => (late ? pause() : undefined)).then(begin);
    begun = started.catch(() => {});
    return started;
  };
  /** When the call before this one has ended: calls end in order, too. */
  let ended: Promise<unknown> = Promise.resolve();
  const late = (kind: Delayable, output: HostArray, run: (output: HostArray) => Work): Work => {
    const arrive = async (before: Promise<unknown>): Promise<void> => {
      const { work, arrived } = await inOrder(kind, () => {
        const there = delay.calls.includes(kind) ? output.slice() : output;
        return { work: run(there), arrived: there };
      });
      await work.wait();
      if (arrived !== output) await pause();
      await before;
      if (arrived !== output) bytesOf(output).set(bytesOf(arrived));
    };
    const done = arrive(ended);
    ended = done.catch(() => {});
    return workOf(done);
  };
  return {
    name: inner.name,
    rank: inner.rank,
    size: inner.size,
    allGather: (output, input) => {
      if (delay.calls.includes("allGather")) spoil(output, input);
      return late("allGather", output, (there) => inner.allGather(there, input));
    },
    reduceScatter: (output, input, op, dtype) => {
      if (delay.calls.includes("reduceScatter")) spoil(output, input);
      return late("reduceScatter", output, (there) => inner.reduceScatter(there, input, op, dtype));
    },
    allReduce: (data, op, dtype) => late("allReduce", data, (there) => inner.allReduce(there, op, dtype)),
    broadcast: (data, root) => late("broadcast", data, (there) => inner.broadcast(there, root)),
    share: async (input, filled) => {
      filled?.catch(() => {});
      const isLate = delay.calls.includes("share");
      const { sharing } = await inOrder("share", () => {
        const complete = isLate ? Promise.resolve(filled).then(pause) : filled;
        complete?.catch(() => {});
        return { sharing: inner.share(input, complete) };
      });
      const shared = await sharing;
      return isLate ? releasedLate(shared, pause) : shared;
    },
    window: (byteLength) => inner.window(byteLength),
    barrier: () => workOf(inOrder(undefined, () => inner.barrier()).then((work) => work.wait())),
    split: async (color, key) => {
      const { splitting } = await inOrder(undefined, () => ({ splitting: inner.split(color, key) }));
      return delayed(await splitting, delay);
    },
    abort: (reason) => inner.abort(reason),
    close: async () => {
      await begun;
      await inner.close();
    },
  };
}

function workOf(done: Promise<void>): Work {
  done.catch(() => {});
  return { wait: () => done };
}

/** Until a call is done nobody may look at its output; where that is the call's input too, it stays. */
function spoil(output: HostArray, input: HostArray): void {
  const own = bytesOf(input).slice();
  bytesOf(output).fill(0xff);
  if (input.buffer === output.buffer) bytesOf(input).set(own);
}

function releasedLate(shared: SharedInputs, pause: () => Promise<void>): SharedInputs {
  const released = shared.released.then(pause);
  released.catch(() => {});
  return { inputs: shared.inputs, release: () => shared.release(), released };
}

/** Pauses of up to 3 ms; most are shorter than any timer. */
function pauses(seed: number): () => Promise<void> {
  let state = seed >>> 0;
  return async () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const ms = ((state >>> 16) % 10) - 6;
    if (ms > 0) await sleep(ms);
    else for (let turn = ms; turn < 0; turn++) await null;
  };
}

/**
 * Ranks in one event loop for checkpoint tests: just the operations that checkpoints use, each a rendezvous by order of
 * calls. Kept apart from the project's collectives, so that a fault of theirs does not show here.
 *
 * @module
 */
import type { Collective, Work } from "../../core/contracts/collective.ts";
import { bytesOf, type HostArray } from "../../core/contracts/dtype.ts";
import { CollectiveError } from "../../core/contracts/errors.ts";

interface Call {
  readonly operation: string;
  readonly inputs: (HostArray | undefined)[];
  readonly outputs: (HostArray | undefined)[];
  readonly done: PromiseWithResolvers<void>;
  arrived: number;
}

/** One collective per rank. */
export function fakeCollectives(size: number): readonly Collective[] {
  const calls: Call[] = [];
  let aborted: CollectiveError | undefined;

  const finish = (call: Call): void => {
    const [operation, root] = call.operation.split(" ");
    for (const output of call.outputs) {
      if (output === undefined) continue;
      const target = bytesOf(output);
      if (operation === "broadcast") target.set(bytesOf(call.inputs[Number(root)]!).slice());
      if (operation === "allGather") {
        for (const [rank, input] of call.inputs.entries())
          target.set(bytesOf(input!), rank * input!.byteLength);
      }
    }
    call.done.resolve();
  };

  return Array.from({ length: size }, (_, rank): Collective => {
    let next = 0;
    const enter = (operation: string, output?: HostArray, input?: HostArray): Work => {
      calls[next] ??= { operation, inputs: [], outputs: [], done: Promise.withResolvers(), arrived: 0 };
      const call = calls[next++]!;
      call.done.promise.catch(() => undefined);
      if (call.operation !== operation)
        call.done.reject(new CollectiveError(`rank ${rank}: ${operation}, not ${call.operation}`));
      call.inputs[rank] = input;
      call.outputs[rank] = output;
      call.arrived += 1;
      if (aborted !== undefined) call.done.reject(aborted);
      else if (call.arrived === size) finish(call);
      return { wait: () => call.done.promise };
    };
    const absent = (): never => {
      throw new CollectiveError("not part of this fake");
    };
    return {
      name: "fake",
      rank,
      size,
      allGather: (output, input) => enter(`allGather`, output, input),
      broadcast: (data, root) => enter(`broadcast ${root}`, data, data),
      barrier: () => enter("barrier"),
      reduceScatter: absent,
      allReduce: absent,
      split: absent,
      abort(reason: string): void {
        aborted = new CollectiveError(reason, rank);
        for (const call of calls) call.done.reject(aborted);
      },
      close: async () => undefined,
    };
  });
}

/** Runs a function as every rank; rejects with the first rank's error once all have ended. */
export async function runRanks<T>(size: number, run: (collective: Collective) => Promise<T>): Promise<T[]> {
  const settled = await settleRanks(size, run);
  return settled.map((result) => {
    if (result.status === "rejected") throw result.reason;
    return result.value;
  });
}

/** Runs a function as every rank and tells how each ended. */
export function settleRanks<T>(
  size: number,
  run: (collective: Collective) => Promise<T>,
): Promise<PromiseSettledResult<T>[]> {
  return Promise.allSettled(fakeCollectives(size).map(run));
}

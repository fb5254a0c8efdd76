import { describe, expect, test } from "bun:test";
import { nativeCheckpointer } from "../../checkpoint/checkpointer.ts";
import { memoryStore } from "../../checkpoint/stores/memory.ts";
import type { CheckpointStore, ShardedState, StateTensor } from "../../core/contracts/checkpointer.ts";
import type { StoredArray } from "../../core/contracts/dtype.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import { runRanks, settleRanks } from "./ranks.ts";
import { dimZero, emptyState, patternTensor } from "./states.ts";

/** Two ranks' halves of one tensor that training goes on changing; in host memory, or behind a device's reads. */
function live(rank: number, inPlace: boolean): { state: ShardedState; values: Float32Array } {
  const values = new Float32Array(6).fill(1);
  const tensor: StateTensor = {
    name: "w",
    dtype: "float32",
    shape: [4, 3],
    pieces: [
      {
        offsets: [2 * rank, 0],
        sizes: [2, 3],
        read: async () => values.slice(),
        ...(inPlace
          ? { view: () => values }
          : { readInto: async (target: StoredArray) => (target as Float32Array).set(values) }),
        write: (data) => values.set(data as Float32Array),
      },
    ],
  };
  return { state: { tensors: [tensor], values: { lr: [1] }, rankValues: { rank } }, values };
}

/** A store whose commits wait until they are let through, or fail. */
function gated(inner: CheckpointStore): {
  store: CheckpointStore;
  open: () => void;
  fail: (message: string) => void;
} {
  const gate = Promise.withResolvers<void>();
  // Nobody may have come to it yet.
  gate.promise.catch(() => undefined);
  const store: CheckpointStore = {
    ...inner,
    async begin(name) {
      const transaction = await inner.begin(name);
      const commit = async () => {
        await gate.promise;
        await transaction.commit();
      };
      return { ...transaction, commit };
    },
  };
  return { store, open: gate.resolve, fail: (message) => gate.reject(new CheckpointError(message)) };
}

/** `expect(...).rejects` would keep the other ranks of this event loop from going on. */
function reasonOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "it succeeded",
    (error: Error) => error.message,
  );
}

async function loaded(store: CheckpointStore, name: string): Promise<readonly number[]> {
  const tensor = { ...patternTensor("w", "float32", [4, 3]) };
  const [all] = await runRanks(1, async (collective) => {
    const { state, filled } = emptyState([tensor], dimZero(1), 0);
    await nativeCheckpointer(store).load(state, name, collective);
    return filled.flatMap(({ bytes }) => [...new Float32Array(bytes.slice().buffer)]);
  });
  return all!;
}

describe("a save in the background", () => {
  test.each([true, false])(
    "holds what the state was when it was called, though training goes on (in place: %p)",
    async (inPlace) => {
      const { store, open } = gated(memoryStore("memory:background"));
      const checkpointer = nativeCheckpointer(store);
      await runRanks(2, async (collective) => {
        const { state, values } = live(collective.rank, inPlace);
        const pending = await checkpointer.saveAsync(state, 1, collective);
        values.fill(2);
        expect(pending.outcome).toBeUndefined();
        expect(await store.list()).toEqual([]);
        await collective.barrier().wait();
        open();
        const info = await pending.wait();
        expect(info).toMatchObject({ name: "step-00000001", step: 1 });
        expect(pending.outcome).toEqual({ info });
        // The same memory again.
        await (await checkpointer.saveAsync(state, 2, collective)).wait();
      });
      expect(await loaded(store, "step-00000001")).toEqual(Array(12).fill(1));
      expect(await loaded(store, "step-00000002")).toEqual(Array(12).fill(2));
      await checkpointer.close();
    },
  );

  test("does not disturb the collectives of training", async () => {
    const { store, open } = gated(memoryStore("memory:background-collectives"));
    const checkpointer = nativeCheckpointer(store);
    const sums = await runRanks(3, async (collective) => {
      const { state } = live(Math.min(collective.rank, 1), true);
      const half = collective.rank < 2 ? state.tensors : [{ ...state.tensors[0]!, pieces: [] }];
      const pending = await checkpointer.saveAsync({ ...state, tensors: half }, 1, collective);
      const sum = new Float64Array([collective.rank]);
      for (let i = 0; i < 5; i++) await collective.allReduce(sum, "sum", "float64").wait();
      open();
      await pending.wait();
      return sum[0];
    });
    expect(sums).toEqual([243, 243, 243]);
    await checkpointer.close();
  });

  test("lets a second one wait, or refuses it on every rank", async () => {
    const { store, open } = gated(memoryStore("memory:background-busy"));
    const checkpointer = nativeCheckpointer(store);
    await runRanks(2, async (collective) => {
      const { state } = live(collective.rank, true);
      await checkpointer.saveAsync(state, 1, collective);
      const refused = checkpointer.saveAsync(state, 2, collective, { whenBusy: "refuse" });
      expect(await reasonOf(refused)).toContain("the save of step 1 is still being written");
      const second = checkpointer.saveAsync(state, 2, collective);
      open();
      await (await second).wait();
    });
    expect(await store.list()).toEqual(["step-00000001", "step-00000002"]);
    await checkpointer.close();
  });

  test("that fails is told once, by the next save on every rank, and the one after succeeds", async () => {
    const inner = memoryStore("memory:background-fails");
    const { store, fail } = gated(inner);
    let broken = true;
    const mended: CheckpointStore = { ...inner, begin: (name) => (broken ? store : inner).begin(name) };
    const checkpointer = nativeCheckpointer(mended);
    fail("disk full");
    const results = await settleRanks(2, async (collective) => {
      const { state } = live(collective.rank, true);
      const pending = await checkpointer.saveAsync(state, 1, collective);
      // Of two ranks one looks at it and one does not; both are told.
      if (collective.rank === 0) expect(await reasonOf(pending.wait())).toBe("save of step 1: disk full");
      const next = checkpointer.save(state, 2, collective);
      expect(await reasonOf(next)).toEndWith(
        "an earlier save in the background failed: save of step 1: disk full",
      );
      const outcome = pending.outcome ?? {};
      expect("error" in outcome && String(outcome.error)).toBe("CheckpointError: save of step 1: disk full");
      broken = false;
      return await checkpointer.save(state, 3, collective);
    });
    for (const result of results) expect(result.status).toBe("fulfilled");
    expect(await inner.list()).toEqual(["step-00000003"]);
    await checkpointer.close();
  });

  test("that fails before it is copied is told at once, on every rank", async () => {
    const checkpointer = nativeCheckpointer(memoryStore("memory:background-unsound"));
    const results = await settleRanks(2, (collective) => {
      const { state } = live(collective.rank, true);
      const [tensor] = state.tensors;
      const read = async (): Promise<never> => {
        throw new CheckpointError("device lost");
      };
      const lost = { ...tensor!, pieces: [{ ...tensor!.pieces[0]!, view: () => undefined, read }] };
      return checkpointer.saveAsync(
        collective.rank === 1 ? { ...state, tensors: [lost] } : state,
        1,
        collective,
      );
    });
    for (const result of results) {
      expect(result).toMatchObject({
        status: "rejected",
        reason: { message: "save of step 1: rank 1: device lost" },
      });
    }
    await checkpointer.close();
  });
});

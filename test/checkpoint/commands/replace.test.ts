import { expect, test } from "bun:test";
import { nativeCheckpointer } from "../../../checkpoint/checkpointer.ts";
import { replacement } from "../../../checkpoint/commands/replace.ts";
import { memoryStore } from "../../../checkpoint/stores/memory.ts";
import type { CheckpointStore, StoreTransaction } from "../../../core/contracts/checkpointer.ts";
import { CheckpointError } from "../../../core/contracts/errors.ts";
import { runRanks } from "../ranks.ts";
import { cutBox, dimZero, emptyState, patternTensor, shardedState } from "../states.ts";

const OLD = [patternTensor("w", "float32", [3, 4])];
const NEW = [patternTensor("w", "float32", [5, 4]), patternTensor("b", "int64", [7])];
const STEP = 3;
const NAME = "step-00000003";

const save = async (store: CheckpointStore, tensors: typeof OLD): Promise<void> => {
  await runRanks(2, (collective) =>
    nativeCheckpointer(store).save(shardedState(tensors, dimZero(2), collective.rank), STEP, collective),
  );
};

/** Whether a checkpoint of the store holds these tensors. */
const holds = async (store: CheckpointStore, name: string, tensors: typeof OLD): Promise<boolean> => {
  const [right] = await runRanks(1, async (collective) => {
    const { state, filled } = emptyState(tensors, dimZero(1), 0);
    await nativeCheckpointer(store).load(state, name, collective);
    return filled.every(({ tensor, box, bytes }) => Buffer.compare(cutBox(tensor, box), bytes) === 0);
  });
  return right!;
};

/** A store that fails at its `n`-th change, and counts them. */
function failing(
  inner: CheckpointStore,
  n: number,
  links: boolean,
): { store: CheckpointStore; count: number } {
  const all = { store: inner, count: 0 };
  const change = <T>(run: () => Promise<T>): Promise<T> =>
    ++all.count === n ? Promise.reject(new CheckpointError("the disk is gone")) : run();
  const wrap = (transaction: StoreTransaction): StoreTransaction => ({
    ...transaction,
    create: (file, bytes) => change(() => transaction.create(file, bytes)),
    link: links ? (file, from) => change(() => transaction.link!(file, from)) : (undefined as never),
    commit: () => change(() => transaction.commit()),
  });
  all.store = {
    ...inner,
    begin: (name) => change(async () => wrap(await inner.begin(name))),
    join: async (name, id) => wrap(await inner.join(name, id)),
    delete: (name) => change(() => inner.delete(name)),
  };
  return all;
}

test.each([true, false])(
  "wherever a replacement fails, the old checkpoint or the new one is there; links: %p",
  async (links) => {
    let messages = 0;
    for (let n = 1; ; n++) {
      const inner = memoryStore(`memory:replace-${links}-${n}`);
      await save(inner, OLD);
      const faulty = failing(inner, n, links);
      const { store, complete } = replacement(faulty.store, NAME, [NAME]);
      const problem = await save(store, NEW)
        .then(complete)
        .catch((error: Error) => error);
      const names = await inner.list();
      if (problem === undefined) {
        expect(faulty.count).toBeLessThan(n);
        expect(names).toEqual([NAME]);
        expect(await holds(inner, NAME, NEW)).toBe(true);
        break;
      }
      expect(problem).toBeInstanceOf(CheckpointError);
      const [, beside] = / is whole as (step-[0-9a-f-]+): the disk is gone$/.exec(problem.message) ?? [];
      if (beside === undefined) expect(await holds(inner, NAME, OLD)).toBe(true);
      else {
        messages++;
        expect(await holds(inner, beside, NEW)).toBe(true);
      }
    }
    // The deletion of the old one, the commit of the new name, and what is between.
    expect(messages).toBeGreaterThan(3);
  },
);

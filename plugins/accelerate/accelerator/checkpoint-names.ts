/**
 * Accelerate's names for checkpoints, `checkpoint_N`, in any store: a checkpointer, which names them after steps, is shown
 * a store in which the N-th save has the name of step N.
 *
 * @module
 */
import type { CheckpointStore } from "../../../core/contracts/checkpointer.ts";

const OURS = /^checkpoint_(0|[1-9][0-9]{0,15})$/;
const THEIRS = /^step-0*([0-9]+)$/;

/** The number in a name; `undefined` when it is another kind of name. */
export function checkpointNumber(name: string): number | undefined {
  const digits = OURS.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** Of checkpoint N. */
export function checkpointName(number: number): string {
  return `checkpoint_${number}`;
}

/** `store` with names as a checkpointer has them; what is named otherwise is not seen. */
export function withStepNames(store: CheckpointStore): CheckpointStore {
  const inside = (name: string): string => {
    const digits = THEIRS.exec(name)?.[1];
    return digits === undefined ? name : checkpointName(Number(digits));
  };
  const { open } = store;
  return {
    location: store.location,
    begin: async (name) => {
      const transaction = await store.begin(inside(name));
      return linking(transaction);
    },
    join: async (name, id) => linking(await store.join(inside(name), id)),
    list: async () =>
      (await store.list()).flatMap((name) => {
        const number = checkpointNumber(name);
        return number === undefined ? [] : [`step-${String(number).padStart(8, "0")}`];
      }),
    size: (name, file) => store.size(inside(name), file),
    files: (name) => store.files(inside(name)),
    read: (name, file, begin, end) => store.read(inside(name), file, begin, end),
    ...(open === undefined ? {} : { open: (name, file) => open.call(store, inside(name), file) }),
    delete: (name) => store.delete(inside(name)),
  };

  function linking(transaction: Awaited<ReturnType<CheckpointStore["begin"]>>): typeof transaction {
    const { link, linkVerifies } = transaction;
    return {
      id: transaction.id,
      create: (file) => transaction.create(file),
      read: (file) => transaction.read(file),
      remove: (file) => transaction.remove(file),
      ...(link === undefined
        ? {}
        : {
            link: (file, from) => link.call(transaction, file, { name: inside(from.name), file: from.file }),
          }),
      ...(linkVerifies === undefined ? {} : { linkVerifies }),
      commit: () => transaction.commit(),
      abort: () => transaction.abort(),
    };
  }
}

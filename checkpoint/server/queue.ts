/**
 * Tasks that must not overlap: each begins when the one before has ended, however it ended.
 *
 * @module
 */

/** Runs tasks one after another. */
export type Queue = <T>(task: () => Promise<T>) => Promise<T>;

/** A queue without tasks. */
export function createQueue(): Queue {
  let last: Promise<unknown> = Promise.resolve();
  return <T>(task: () => Promise<T>): Promise<T> => {
    const result = last.then(task, task);
    last = result.catch(() => undefined);
    return result;
  };
}

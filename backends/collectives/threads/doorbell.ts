/**
 * Lets any number of async functions of one thread wait for conditions in shared memory, with one sleep between them.
 *
 * @module
 */
import type { Control } from "./control.ts";

interface Waiter {
  readonly ready: () => boolean;
  readonly promise: PromiseWithResolvers<void>;
}

/** The waiting side of one rank's bell. */
export class Doorbell {
  readonly #control: Control;
  readonly #rank: number;
  readonly #waiters: Set<Waiter> = new Set();
  #listening = false;

  constructor(control: Control, rank: number) {
    this.#control = control;
    this.#rank = rank;
  }

  /** Resolves when `ready()` is true; rejects with what it throws. It is asked again whenever the bell rings. */
  until(ready: () => boolean): Promise<void> {
    const waiter: Waiter = { ready, promise: Promise.withResolvers() };
    if (!settle(waiter)) {
      this.#waiters.add(waiter);
      if (!this.#listening) void this.#listen();
    }
    return waiter.promise.promise;
  }

  async #listen(): Promise<void> {
    this.#listening = true;
    while (this.#waiters.size > 0) {
      const heard = this.#control.listen(this.#rank);
      for (const waiter of this.#waiters) if (settle(waiter)) this.#waiters.delete(waiter);
      if (this.#waiters.size > 0) await this.#control.sleep(this.#rank, heard);
    }
    this.#listening = false;
  }
}

/** Whether the waiter is done with, either way. */
function settle({ ready, promise }: Waiter): boolean {
  try {
    if (!ready()) return false;
    promise.resolve();
  } catch (error) {
    promise.reject(error);
  }
  return true;
}

/**
 * Shared inputs and how long they are held: what one rank has not released yet, and, for ranks of one event loop, when
 * the last of them has.
 *
 * @module
 */
import type { SharedInputs, SharedWindow } from "../../core/contracts/collective.ts";
import type { HostArray } from "../../core/contracts/dtype.ts";
import { ShapeError } from "../../core/contracts/errors.ts";

/** A share that all ranks have called, as one of its holders is given it. */
export interface OpenShare {
  /** In rank order. */
  readonly inputs: readonly HostArray[];
  readonly released: Promise<void>;
  /** The holder is done; called once. */
  letGo(): void;
}

/** What one rank holds. */
export class HeldShares {
  readonly #held: Set<() => void> = new Set();

  /** Hands a share to the caller. */
  hold({ inputs, released, letGo }: OpenShare): SharedInputs {
    const release = (): void => {
      if (this.#held.delete(release)) letGo();
    };
    this.#held.add(release);
    return { inputs, released, release };
  }

  releaseAll(): void {
    for (const release of this.#held) release();
  }
}

/** The open shares of a group within one event loop. */
export class ShareLedger {
  readonly #open: Set<PromiseWithResolvers<void>> = new Set();
  #last: Promise<void> = Promise.resolve();

  /** A share of `inputs`, to be held by as many ranks. It ends after the ones before it. */
  open(inputs: readonly HostArray[]): OpenShare {
    const gate = Promise.withResolvers<void>();
    const before = this.#last;
    const released = gate.promise.then(() => before);
    // A failed share that nobody awaits must not end the process.
    released.catch(() => {});
    this.#open.add(gate);
    this.#last = released;
    let holders = inputs.length;
    const letGo = (): void => {
      if (--holders > 0) return;
      this.#open.delete(gate);
      gate.resolve();
    };
    return { inputs, released, letGo };
  }

  fail(error: Error): void {
    for (const gate of this.#open) gate.reject(error);
    this.#open.clear();
  }
}

/** A window for ranks that see all of each other's memory. @throws ShapeError unless `byteLength` is an integer of at least 0. */
export function privateWindow(byteLength: number): SharedWindow {
  checkWindow(byteLength);
  return { bytes: new Uint8Array(byteLength), release() {} };
}

/** @throws ShapeError unless `byteLength` is an integer of at least 0. */
export function checkWindow(byteLength: number): void {
  if (Number.isSafeInteger(byteLength) && byteLength >= 0) return;
  throw new ShapeError(`window: ${byteLength} bytes were asked for, allowed: an integer of at least 0`);
}

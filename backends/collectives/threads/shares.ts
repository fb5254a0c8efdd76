/**
 * The shares of one rank in a group: which it still holds, and the end of each, when no rank does.
 *
 * @module
 */
import type { SharedInputs } from "../../../core/contracts/collective.ts";
import type { HostArray } from "../../../core/contracts/dtype.ts";
import { HeldShares } from "../held-shares.ts";
import type { GroupBlock } from "./group-block.ts";
import type { Exposed } from "./memories.ts";

/** How a rank waits for the others, and wakes them. */
export interface SharePeers {
  /** Resolves when `ready()` is true; rejects when the group fails. */
  until(ready: () => boolean): Promise<void>;
  wake(): void;
}

/** What is done when no rank holds a share any more, or its group failed. */
interface ShareEnd {
  readonly exposed: Exposed | undefined;
  resolve(): void;
  reject(error: Error): void;
}

/** One rank's shares, numbered in the order of their calls. */
export class RankShares {
  readonly #block: GroupBlock;
  readonly #rank: number;
  readonly #peers: SharePeers;
  readonly #held: HeldShares = new HeldShares();
  /** Shares that this rank has not released, or not even got; the oldest first. */
  readonly #unreleased: Set<number> = new Set();
  /** How each share that is held somewhere will end. */
  readonly #ends: Map<number, ShareEnd> = new Map();
  #count = 0;

  constructor(block: GroupBlock, rank: number, peers: SharePeers) {
    this.#block = block;
    this.#rank = rank;
    this.#peers = peers;
  }

  /** The number of a share that was called now. */
  begin(): number {
    const turn = this.#count++;
    this.#unreleased.add(turn);
    return turn;
  }

  /** Hands a share to the caller; `exposed` is what the others read of this rank. */
  hold(turn: number, inputs: readonly HostArray[], exposed: Exposed | undefined): SharedInputs {
    const { promise: released, resolve, reject } = Promise.withResolvers<void>();
    // A failed share that nobody awaits must not end the rank.
    released.catch(() => {});
    this.#ends.set(turn, { exposed, resolve, reject });
    this.#peers
      .until(() => this.#block.released(turn))
      .then(
        () => this.#endUpTo(turn),
        (error: Error) => this.#fail(turn, error),
      );
    return this.#held.hold({ inputs, released, letGo: () => this.#letGo(turn) });
  }

  releaseAll(): void {
    this.#held.releaseAll();
  }

  /** What was released up to a turn ends in the order of the calls, whichever wait woke first. */
  #endUpTo(turn: number): void {
    for (const [ended, { exposed, resolve }] of [...this.#ends].sort(([a], [b]) => a - b)) {
      if (ended > turn) return;
      this.#ends.delete(ended);
      exposed?.release();
      resolve();
    }
  }

  #fail(turn: number, error: Error): void {
    const end = this.#ends.get(turn);
    this.#ends.delete(turn);
    end?.exposed?.release();
    end?.reject(error);
  }

  #letGo(turn: number): void {
    this.#unreleased.delete(turn);
    const [oldest = this.#count] = this.#unreleased;
    if (this.#block.release(this.#rank, oldest)) this.#peers.wake();
  }
}

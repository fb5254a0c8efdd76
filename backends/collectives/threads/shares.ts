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

/** One rank's shares, numbered in the order of their calls. */
export class RankShares {
  readonly #block: GroupBlock;
  readonly #rank: number;
  readonly #peers: SharePeers;
  readonly #held: HeldShares = new HeldShares();
  /** Shares that this rank has not released, or not even got; the oldest first. */
  readonly #unreleased: Set<number> = new Set();
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
    const released = this.#end(turn, exposed);
    // A failed share that nobody awaits must not end the rank.
    released.catch(() => {});
    return this.#held.hold({ inputs, released, letGo: () => this.#letGo(turn) });
  }

  releaseAll(): void {
    this.#held.releaseAll();
  }

  async #end(turn: number, exposed: Exposed | undefined): Promise<void> {
    try {
      await this.#peers.until(() => this.#block.released(turn));
    } finally {
      exposed?.release();
    }
  }

  #letGo(turn: number): void {
    this.#unreleased.delete(turn);
    const [oldest = this.#count] = this.#unreleased;
    if (this.#block.release(this.#rank, oldest)) this.#peers.wake();
  }
}

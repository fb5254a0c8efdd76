/**
 * What one rank's thread shares with the others of its job.
 *
 * @module
 */
import { CollectiveError } from "../../../core/contracts/errors.ts";
import { Control } from "./control.ts";
import { Doorbell } from "./doorbell.ts";
import { Exposer, type RankMemories } from "./memories.ts";

/** Structured-cloneable: how the launcher hands the shared memories to a rank. */
export interface SharedMemories {
  readonly control: WebAssembly.Memory;
  /** In rank order. */
  readonly ranks: readonly RankMemories[];
}

/** One rank's access to the job's shared memory. */
export class RankWorld {
  readonly rank: number;
  readonly size: number;
  readonly control: Control;
  readonly doorbell: Doorbell;
  readonly memories: readonly RankMemories[];
  readonly exposer: Exposer;

  constructor(rank: number, shared: SharedMemories) {
    this.rank = rank;
    this.size = shared.ranks.length;
    this.control = new Control(shared.control);
    this.doorbell = new Doorbell(this.control, rank);
    this.memories = shared.ranks;
    this.exposer = new Exposer(shared.ranks[rank]!);
  }

  /** Fails the job in this rank's name. */
  fail(message: string): void {
    this.control.fail(this.size, { rank: this.rank, text: `rank ${this.rank} failed: ${message}` });
  }

  /** @throws CollectiveError when a rank failed or the run was killed. */
  check(): void {
    const fault = this.control.fault();
    if (fault) throw new CollectiveError(fault.text, fault.rank < 0 ? undefined : fault.rank);
  }
}

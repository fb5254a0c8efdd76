/**
 * The memory account that every backend keeps: bytes by category, now and at most.
 *
 * @module
 */
import type { MemoryAccount, MemoryBytes, MemoryCategory, MemoryReport } from "../contracts/memory.ts";

type Bytes = Record<MemoryCategory, number>;

const NONE: MemoryBytes = { parameter: 0, gradient: 0, optimizer: 0, activation: 0, communication: 0 };

/** Counts allocations; see {@link MemoryReport} for what it answers. */
export class MemoryMeter implements MemoryAccount {
  #current: Bytes = { ...NONE };
  #peak: Bytes = { ...NONE };
  #total = 0;
  #peakTotal = 0;
  #peakState = 0;

  /** Counts `bytes` that were allocated. */
  add(category: MemoryCategory, bytes: number): void {
    const current = this.#current;
    current[category] += bytes;
    this.#total += bytes;
    if (current[category] > this.#peak[category]) this.#peak[category] = current[category];
    if (this.#total > this.#peakTotal) this.#peakTotal = this.#total;
    const state = stateOf(current);
    if (state > this.#peakState) this.#peakState = state;
  }

  /** Counts `bytes` that were freed. */
  remove(category: MemoryCategory, bytes: number): void {
    this.#current[category] -= bytes;
    this.#total -= bytes;
  }

  /** Counts `bytes` in another category from now on. */
  move(from: MemoryCategory, to: MemoryCategory, bytes: number): void {
    this.remove(from, bytes);
    this.add(to, bytes);
  }

  report(): MemoryReport {
    return {
      current: { ...this.#current },
      peak: { ...this.#peak },
      currentTotal: this.#total,
      peakTotal: this.#peakTotal,
      peakState: this.#peakState,
    };
  }

  resetPeak(): void {
    this.#peak = { ...this.#current };
    this.#peakTotal = this.#total;
    this.#peakState = stateOf(this.#current);
  }
}

function stateOf(bytes: MemoryBytes): number {
  return bytes.parameter + bytes.gradient + bytes.optimizer;
}

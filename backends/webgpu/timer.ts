/**
 * Device time by kernel family, from timestamps around every dispatch. Each dispatch needs a pass of its own for that,
 * which costs time by itself: for finding out where a step goes, not for running.
 *
 * @module
 */
import type { PassTimer } from "./commands.ts";
import { USAGE } from "./constants.ts";
import type { GpuDevice } from "./device.ts";
import type { ReadRing } from "./staging.ts";

/** Device time of one family of kernels. */
export interface KernelTime {
  /** Name of the family, for example `"softmax"`. */
  readonly family: string;
  readonly milliseconds: number;
  readonly dispatches: number;
}

/** Dispatches of a batch that are timed at most. */
const CAPACITY = 256;

/** Adds up device time by family. */
export class KernelTimer implements PassTimer {
  readonly #reads: ReadRing;
  readonly #queries: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  readonly #totals: Map<string, { nanoseconds: bigint; dispatches: number }> = new Map();
  readonly #pending: Set<Promise<void>> = new Set();
  #families: string[] = [];

  constructor(gpu: GpuDevice, reads: ReadRing) {
    this.#reads = reads;
    this.#queries = gpu.device.createQuerySet({ type: "timestamp", count: 2 * CAPACITY });
    this.#resolved = gpu.device.createBuffer({
      size: 16 * CAPACITY,
      usage: USAGE.QUERY_RESOLVE | USAGE.COPY_SRC,
    });
  }

  begin(label: string): GPUComputePassTimestampWrites | undefined {
    if (this.#families.length >= CAPACITY) return undefined;
    const first = 2 * this.#families.push(label.split(" ")[0]!) - 2;
    return { querySet: this.#queries, beginningOfPassWriteIndex: first, endOfPassWriteIndex: first + 1 };
  }

  resolve(encoder: GPUCommandEncoder): () => void {
    const families = this.#families;
    this.#families = [];
    if (families.length === 0) return () => {};
    const bytes = 16 * families.length;
    const slot = this.#reads.lend(bytes);
    encoder.resolveQuerySet(this.#queries, 0, 2 * families.length, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, slot.buffer, 0, bytes);
    return () => {
      const times = new BigUint64Array(2 * families.length);
      const reading = this.#reads
        .collect(slot, 0, new Uint8Array(times.buffer))
        .then(() => this.#add(families, times));
      this.#pending.add(reading);
      // A failed device is reported by the calls that use it.
      void reading.catch(() => {}).then(() => this.#pending.delete(reading));
    };
  }

  /** Times since the last call, the longest first. All work must be submitted. */
  async take(): Promise<readonly KernelTime[]> {
    await Promise.all(this.#pending);
    const times = [...this.#totals].map(([family, { nanoseconds, dispatches }]) => ({
      family,
      milliseconds: Number(nanoseconds) / 1e6,
      dispatches,
    }));
    this.#totals.clear();
    return times.toSorted((a, b) => b.milliseconds - a.milliseconds);
  }

  #add(families: readonly string[], times: BigUint64Array): void {
    for (const [i, family] of families.entries()) {
      const total = this.#totals.get(family) ?? { nanoseconds: 0n, dispatches: 0 };
      total.nanoseconds += times[2 * i + 1]! - times[2 * i]!;
      total.dispatches++;
      this.#totals.set(family, total);
    }
  }
}

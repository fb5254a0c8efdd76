/**
 * The block of one group in the control memory: a ring of slots, one per operation under way. A slot has what each rank
 * called and where its array is, and counts the ranks that arrived at each stage.
 *
 * Counts grow for ever: the n-th use of a slot is complete at `size * (n + 1)`, so nothing is ever reset. They wrap at
 * 32 bits, which comparisons allow for.
 *
 * Shares outlast their slots: each rank counts how many of the group's first ones it holds no more.
 *
 * Layout: fault; per rank whether it left, and released shares; counts; descriptors of 8 float64 each.
 *
 * @module
 */
import type { ReductionOp } from "../../../core/contracts/collective.ts";
import type { DType } from "../../../core/contracts/dtype.ts";
import type { Call, CallName } from "../calls.ts";
import type { Control } from "./control.ts";
import { FAULT_BYTES, type Fault, readFault, writeFault } from "./fault.ts";
import type { Place } from "./memories.ts";

/** Operations of a group that may be under way at once; more wait their turn. */
const SLOTS = 16;

/**
 * Stages of an operation: call made; own slice of an allReduce reduced; all reading done. Not every operation passes
 * `reduced`: whoever uses it numbers its operations apart.
 */
export type Stage = "posted" | "reduced" | "done";

const STAGE: Readonly<Record<Stage, number>> = { posted: 0, reduced: 1, done: 2 };
const COUNTS_PER_SLOT = 4;
const FIELDS = 8;

const NAMES: readonly CallName[] = [
  "allGather",
  "reduceScatter",
  "allReduce",
  "broadcast",
  "share",
  "barrier",
  "split",
];
const TYPES: readonly DType[] = [
  "float32",
  "float64",
  "float16",
  "bfloat16",
  "int32",
  "int64",
  "uint8",
  "bool",
];
const OPS: readonly ReductionOp[] = ["sum", "avg", "max"];
const MEMORIES: readonly Place["memory"][] = ["host", "staging"];

/** One thread's view of a group's block. */
export class GroupBlock {
  readonly offset: number;
  readonly size: number;
  readonly #buffer: ArrayBufferLike;
  readonly #left: Int32Array;
  readonly #released: Int32Array;
  readonly #counts: Int32Array;
  readonly #descriptors: Float64Array;

  /** The block at `offset`; it must have been allocated. */
  constructor(control: Control, offset: number, size: number) {
    const layout = layoutOf(size);
    const buffer = control.buffer(offset + layout.bytes);
    this.offset = offset;
    this.size = size;
    this.#buffer = buffer;
    this.#left = new Int32Array(buffer, offset + layout.left, size);
    this.#released = new Int32Array(buffer, offset + layout.released, size);
    this.#counts = new Int32Array(buffer, offset + layout.counts, SLOTS * COUNTS_PER_SLOT);
    this.#descriptors = new Float64Array(buffer, offset + layout.descriptors, SLOTS * size * FIELDS);
  }

  /** Reserves a block for a group of `size`; returns its offset. */
  static allocate(control: Control, size: number): number {
    return control.allocate(layoutOf(size).bytes);
  }

  /** Reserves room for the blocks of any split of `size` ranks; returns its offset. */
  static allocateForSplit(control: Control, size: number): number {
    // Groups of one have the largest blocks per rank.
    return control.allocate(size * layoutOf(1).bytes);
  }

  /** Where a block is that follows blocks for groups of `sizes`. */
  static offsetAfter(offset: number, sizes: readonly number[]): number {
    return sizes.reduce((sum, size) => sum + layoutOf(size).bytes, offset);
  }

  /** Whether operation `sequence` may be posted: its slot's former user is done on all ranks. */
  free(sequence: number): boolean {
    return sequence < SLOTS || this.all("done", sequence - SLOTS);
  }

  /** Writes what `rank` calls. Arriving at `posted` publishes it. */
  describe(sequence: number, rank: number, call: Call, place: Place | undefined): void {
    this.#descriptors.set(
      [
        sequence + 1,
        NAMES.indexOf(call.name),
        call.length,
        TYPES.indexOf(call.dtype),
        call.op === undefined ? -1 : OPS.indexOf(call.op),
        call.root ?? -1,
        place ? MEMORIES.indexOf(place.memory) : -1,
        place?.offset ?? 0,
      ],
      this.#descriptor(sequence, rank),
    );
  }

  /** What `rank` called; valid once it posted. */
  call(sequence: number, rank: number): Call {
    const at = this.#descriptor(sequence, rank);
    const fields = this.#descriptors;
    const op = OPS[fields[at + 4]!];
    const root = fields[at + 5]!;
    return {
      name: NAMES[fields[at + 1]!]!,
      length: fields[at + 2]!,
      dtype: TYPES[fields[at + 3]!]!,
      ...(op === undefined ? {} : { op }),
      ...(root < 0 ? {} : { root }),
    };
  }

  /** Where `rank`'s array is; valid once it posted, for operations in which it has one. */
  place(sequence: number, rank: number): Place {
    const at = this.#descriptor(sequence, rank);
    return { memory: MEMORIES[this.#descriptors[at + 6]!]!, offset: this.#descriptors[at + 7]! };
  }

  /** Counts this rank in; true for the last one. */
  arrive(stage: Stage, sequence: number): boolean {
    const before = Atomics.add(this.#counts, countIndex(stage, sequence), 1);
    return ((before + 1 - this.#target(sequence)) | 0) === 0;
  }

  /** Whether all ranks have arrived. */
  all(stage: Stage, sequence: number): boolean {
    const count = Atomics.load(this.#counts, countIndex(stage, sequence));
    return ((count - this.#target(sequence)) | 0) >= 0;
  }

  /** A rank that left without having posted `sequence`. */
  missing(sequence: number): number | undefined {
    for (let rank = 0; rank < this.size; rank++) {
      if (Atomics.load(this.#left, rank) === 0) continue;
      if (this.#descriptors[this.#descriptor(sequence, rank)] !== sequence + 1) return rank;
    }
    return undefined;
  }

  /** `rank` holds none of the first `count` shares. True when that ends shares: the other ranks had released them. */
  release(rank: number, count: number): boolean {
    const before = Atomics.exchange(this.#released, rank, count);
    return this.released(before);
  }

  /** Whether no rank holds share `turn` or one before it. */
  released(turn: number): boolean {
    for (let rank = 0; rank < this.size; rank++) {
      if (((Atomics.load(this.#released, rank) - turn) | 0) <= 0) return false;
    }
    return true;
  }

  leave(rank: number): void {
    Atomics.store(this.#left, rank, 1);
  }

  fault(): Fault | undefined {
    return readFault(this.#buffer, this.offset);
  }

  fail(fault: Fault): void {
    writeFault(this.#buffer, this.offset, fault);
  }

  #descriptor(sequence: number, rank: number): number {
    return ((sequence % SLOTS) * this.size + rank) * FIELDS;
  }

  #target(sequence: number): number {
    return this.size * (Math.floor(sequence / SLOTS) + 1);
  }
}

function countIndex(stage: Stage, sequence: number): number {
  return (sequence % SLOTS) * COUNTS_PER_SLOT + STAGE[stage];
}

function layoutOf(size: number): {
  left: number;
  released: number;
  counts: number;
  descriptors: number;
  bytes: number;
} {
  const left = FAULT_BYTES;
  const released = left + Math.ceil(size / 16) * 64;
  const counts = released + Math.ceil(size / 16) * 64;
  const descriptors = counts + SLOTS * COUNTS_PER_SLOT * 4;
  return { left, released, counts, descriptors, bytes: descriptors + SLOTS * size * FIELDS * 8 };
}

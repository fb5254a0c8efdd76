/**
 * Collective: how ranks exchange data. Works on host memory; a backend whose memory is not the host's stages through it.
 *
 * The law:
 * - Every rank of the group calls the same operations in the same order with the same sizes. A rank that differs makes
 *   the call reject on every rank with a CollectiveError that says who called what.
 * - Operations may be started before earlier ones were awaited; they complete in order.
 * - Buffers given to a call belong to it until its `wait()` resolves; then outputs are complete and inputs reusable.
 * - Reductions add in rank order, in float32 for 16-bit types, so results are bitwise the same on every rank and run.
 * - A rank that fails or vanishes makes every pending and later call of the others reject with an error that names it.
 * - Shared inputs are read only. They stay as they are until every rank of the group has released them; then, and in the
 *   order of the calls, `released` resolves. A rank that closes releases what it holds. When the group fails, `released`
 *   rejects, and what held views show is undefined.
 * - A group of one does no communication. Zero-length buffers are legal.
 *
 * @module
 */
import type { DType, HostArray } from "./dtype.ts";

/** How reduceScatter and allReduce combine. `avg` divides the sum by the group's size. */
export type ReductionOp = "sum" | "avg" | "max";

/** A started operation. */
export interface Work {
  /** Resolves when outputs are complete and inputs reusable. May be called again; starts nothing. */
  wait(): Promise<void>;
}

/** What every rank gave to one `share`, as one rank sees it. */
export interface SharedInputs {
  /** In rank order, this rank's own included. Not to be used after `release()`. */
  readonly inputs: readonly HostArray[];
  /** This rank is done with the inputs. May be called again. */
  release(): void;
  /** Resolves when every rank is done with them: this rank's own is reusable. */
  readonly released: Promise<void>;
}

/** Memory lent to one rank, which the others read in place where they can reach it. */
export interface SharedWindow {
  /** Starts at a multiple of 64; content undefined. */
  readonly bytes: Uint8Array;
  /** Gives it back, which `close` does not. May be called again; what lies in it must no longer be shared. */
  release(): void;
}

/** A group of ranks as seen by one of them. */
export interface Collective {
  /** Registered name of the transport. */
  readonly name: string;
  /** This rank within the group. */
  readonly rank: number;
  /** Number of ranks in the group. */
  readonly size: number;

  /** `output` (size x input) becomes the ranks' inputs in rank order. `input` may be this rank's slice of `output`. */
  allGather(output: HostArray, input: HostArray): Work;
  /** `output` becomes this rank's slice of the reduction of all inputs (size x output). `dtype` says what the elements are. */
  reduceScatter(output: HostArray, input: HostArray, op: ReductionOp, dtype: DType): Work;
  /** Reduces in place: every rank ends with the same reduction. */
  allReduce(data: HostArray, op: ReductionOp, dtype: DType): Work;
  /** Every rank's `data` becomes the root's. */
  broadcast(data: HostArray, root: number): Work;
  /**
   * Shows every rank's `input` to all ranks. They have one length and element type. What lies in `window()` memory, or in
   * `RankContext.hostMemory`, is shown without a copy.
   *
   * With `filled`, the call takes its place in the order now, and `input` is complete when that resolves; when it
   * rejects, so does the call, and the group fails.
   */
  share(input: HostArray, filled?: Promise<unknown>): Promise<SharedInputs>;
  /** Memory from which `share` and the other operations need no copy. Not collective. @throws DeviceError when it is used up. */
  window(byteLength: number): SharedWindow;
  /** Resolves when every rank has called it. */
  barrier(): Work;
  /** Subgroups: ranks with one `color` form a group, ordered by `key`, then rank. Collective over this group. */
  split(color: number, key: number): Promise<Collective>;
  /** Makes every pending and later call on every rank of this group reject with `reason`. */
  abort(reason: string): void;
  /** Leaves the group in order; pending work must have been awaited. */
  close(): Promise<void>;
}

/**
 * Checkpointer: save and load of a state that lies sharded over ranks, and the small store behind it.
 *
 * The law:
 * - Nothing is gathered to save: each rank hands over just the boxes that it holds. A box held by several ranks
 *   (replicated) is written once.
 * - A checkpoint exists when its commit succeeded, whole or not at all; `list` shows only committed ones. A save that
 *   fails leaves every earlier checkpoint as it was.
 * - Any checkpoint loads at any world size and layout. Before memory is touched it is proven that every element of
 *   every target is covered and has the expected dtype and shape. Bytes are verified as they are read.
 *
 * @module
 */
import type { Collective } from "./collective.ts";
import type { DType, HostArray } from "./dtype.ts";
import type { Box } from "./shard.ts";

/** A JSON-like value. */
export type Value = null | boolean | number | string | readonly Value[] | { readonly [key: string]: Value };

/** One box of a tensor as a rank holds it. */
export interface StatePiece extends Box {
  /**
   * Set when several ranks hold this same box: this rank is holder `index` of `count`. Exactly one of them writes it:
   * the one whose index is a hash of the tensor's name and the box modulo `count`, so that writing is balanced.
   */
  readonly replica?: { readonly index: number; readonly count: number };
  /** The box's elements, row-major. */
  read(): Promise<HostArray>;
  /** Replaces the box's elements. */
  write(data: HostArray): void;
}

/** One global tensor, and the boxes of it that this rank holds (none is fine). */
export interface StateTensor {
  /** Flat name, for example `model.h.0.ln_1.weight` or `optim.state.h.0.ln_1.weight.exp_avg`. */
  readonly name: string;
  readonly dtype: DType;
  /** Global shape. */
  readonly shape: readonly number[];
  readonly pieces: readonly StatePiece[];
}

/** All that a checkpoint holds, as one rank sees it. */
export interface ShardedState {
  readonly tensors: readonly StateTensor[];
  /** Values equal on every rank, by name; rank 0's are saved. */
  readonly values: Readonly<Record<string, Value>>;
  /** Values of this rank alone, by name (random state, data position). */
  readonly rankValues: Readonly<Record<string, Value>>;
}

/** What `list` and `save` report of a committed checkpoint. */
export interface CheckpointInfo {
  /** Name within the store, for example `step-00000010`. */
  readonly name: string;
  readonly step: number;
  readonly worldSize: number;
  /** Bytes of all its files. */
  readonly bytes: number;
  /** Milliseconds since the epoch. */
  readonly createdAt: number;
}

/** What `load` returns beside the tensors it filled. */
export interface LoadedCheckpoint {
  readonly info: CheckpointInfo;
  readonly values: Readonly<Record<string, Value>>;
  /** The saved ranks' own values, in rank order. */
  readonly rankValues: readonly Readonly<Record<string, Value>>[];
}

/** A damaged place that `verify` found. */
export interface CheckpointFault {
  readonly file: string;
  readonly problem: string;
}

/** Saves and loads checkpoints of one run in one store. */
export interface Checkpointer {
  /** Collective. Commits a new checkpoint named after `step`. @throws CheckpointError when it exists already or cannot be written. */
  save(state: ShardedState, step: number, collective: Collective): Promise<CheckpointInfo>;
  /** Collective. Fills `state`'s tensors from checkpoint `name` (`"latest"`: the newest committed). */
  load(state: Pick<ShardedState, "tensors">, name: string, collective: Collective): Promise<LoadedCheckpoint>;
  /** Committed checkpoints, oldest first. */
  list(): Promise<readonly CheckpointInfo[]>;
  delete(name: string): Promise<void>;
  /** Reads every byte of a checkpoint and reports what is damaged; empty when whole. */
  verify(name: string): Promise<readonly CheckpointFault[]>;
}

/** A file being written to a store. */
export interface StoreWriter {
  /** Appends; the bytes may be reused when it resolves. */
  write(bytes: Uint8Array): Promise<void>;
  /** Makes the file durable. */
  close(): Promise<void>;
  /** Drops it. */
  abort(): Promise<void>;
}

/** A folder of files that is committed as one. Named by the store; `commit` by one rank makes it visible. */
export interface StoreTransaction {
  /** Token by which other ranks join the same transaction. */
  readonly id: string;
  create(file: string): Promise<StoreWriter>;
  read(file: string): Promise<Uint8Array>;
  /** Deletes a file of this transaction, before it is committed. */
  remove(file: string): Promise<void>;
  /** Makes the folder appear under its final name, atomically and durably. @throws CheckpointError when the name is taken. */
  commit(): Promise<void>;
  /** Removes what was written. */
  abort(): Promise<void>;
}

/** Where checkpoints lie: named folders of files. */
export interface CheckpointStore {
  /** Where, for people: a path or URL without secrets. */
  readonly location: string;
  begin(name: string): Promise<StoreTransaction>;
  join(name: string, id: string): Promise<StoreTransaction>;
  /** Names of committed folders, sorted. */
  list(): Promise<readonly string[]>;
  size(name: string, file: string): Promise<number>;
  files(name: string): Promise<readonly string[]>;
  /** Bytes `[begin, end)` of a committed file. */
  read(name: string, file: string, begin: number, end: number): Promise<Uint8Array>;
  delete(name: string): Promise<void>;
}

/** Named tensors in a file (or several), readable by box. */
export interface TensorReader {
  readonly names: readonly string[];
  has(name: string): boolean;
  info(name: string): { readonly dtype: DType; readonly shape: readonly number[] };
  /** A box of a tensor, row-major; the whole tensor without `box`. */
  read(name: string, box?: Box): Promise<HostArray>;
  close(): Promise<void>;
}

/** A tensor to be written to a file. */
export interface NamedTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** The whole tensor, row-major; called when its turn comes. */
  read(): Promise<HostArray>;
}

/** A tensor file format, by extension. */
export interface TensorFormat {
  readonly name: string;
  open(path: string): Promise<TensorReader>;
  /** Writes to a temporary file, makes it durable and renames it to `path`. */
  write(
    path: string,
    tensors: readonly NamedTensor[],
    metadata: Readonly<Record<string, string>>,
  ): Promise<void>;
}

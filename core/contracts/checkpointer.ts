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
import type { StoredArray, StoredDType } from "./dtype.ts";
import type { Box } from "./shard.ts";

/** A JSON-like value. */
export type Value = null | boolean | number | string | readonly Value[] | { readonly [key: string]: Value };

/** One box of a tensor as a rank holds it. */
export interface StatePiece extends Box {
  /**
   * Set when several ranks hold this same box: this rank is holder `index` of `count`. Exactly one of them writes it, chosen
   * so that writing is balanced.
   */
  readonly replica?: { readonly index: number; readonly count: number };
  /** The box's elements, row-major. */
  read(): Promise<StoredArray>;
  /** `read` into an array of the caller's, of the box's dtype and length, which may be shared memory. */
  readInto?(target: StoredArray): Promise<void>;
  /**
   * The elements in place, row-major, where the host reaches them; may be shared memory. `undefined` where it does not.
   * A save reads them there. A load fills them there and then hands the view to `write`.
   */
  view?(): StoredArray | undefined;
  /** Replaces the box's elements. `data` may be reused on return; it may be `view()` itself, which is then complete. */
  write(data: StoredArray): void;
}

/** One global tensor, and the boxes of it that this rank holds (none is fine). */
export interface StateTensor {
  /** Flat name, for example `model.h.0.ln_1.weight` or `optim.state.h.0.ln_1.weight.exp_avg`. */
  readonly name: string;
  readonly dtype: StoredDType;
  /** Global shape. */
  readonly shape: readonly number[];
  /** Does not change while training (a frozen parameter): kept in files of its own, which checkpoints share. */
  readonly constant?: boolean;
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

/** Options of `load`. */
export interface LoadOptions {
  /**
   * What must fit. `"complete"`, the default: every tensor that is wanted; the checkpoint may hold more. `"strict"`: and it
   * may not. `"partial"`: what is missing or differs is left as it is and reported.
   */
  readonly fit?: "complete" | "strict" | "partial";
  /** The name under which the checkpoint holds a tensor of the state; `undefined` leaves the tensor as it is. Default: the same name. */
  rename?(name: string): string | undefined;
  /** Whether a tensor that was saved as another floating dtype is converted. Default false: it differs. */
  readonly cast?: boolean;
}

/** How a checkpoint and the state that was wanted from it differ. Names are the state's, but for `unexpected`. */
export interface LoadDifferences {
  /** Wanted, and not in the checkpoint. */
  readonly missing: readonly string[];
  /** In the checkpoint, and not wanted. */
  readonly unexpected: readonly string[];
  /** In both, with another shape, or with a dtype that is not converted. */
  readonly mismatched: readonly string[];
}

/** What `load` returns beside the tensors it filled. */
export interface LoadedCheckpoint {
  readonly info: CheckpointInfo;
  readonly differences: LoadDifferences;
  readonly values: Readonly<Record<string, Value>>;
  /** The saved ranks' own values, in rank order. */
  readonly rankValues: readonly Readonly<Record<string, Value>>[];
}

/** A damaged place that `verify` found. */
export interface CheckpointFault {
  readonly file: string;
  readonly problem: string;
}

/** Options of `saveAsync`. */
export interface AsyncSaveOptions {
  /** When an earlier one is still being written: `"wait"` for it, the default, or `"refuse"` with a CheckpointError. */
  readonly whenBusy?: "wait" | "refuse";
}

/** A save that goes on in the background. */
export interface PendingSave {
  readonly step: number;
  /** How it ended; `undefined` while it goes on. */
  readonly outcome: { readonly info: CheckpointInfo } | { readonly error: Error } | undefined;
  /** Resolves when it is committed. @throws CheckpointError when it failed, which then counts as told. */
  wait(): Promise<CheckpointInfo>;
}

/** Options of a checkpointer. */
export interface CheckpointerOptions {
  /** After a save only the newest so many are kept. Default: all. Damaged ones are neither counted nor deleted. */
  readonly keepLast?: number | undefined;
  /** And every one whose step is a multiple of this, however old. */
  readonly keepEvery?: number | undefined;
  /** Told on the first rank when old checkpoints could not be deleted after a save, which counts nevertheless. */
  onRetentionFailure?(error: unknown): void;
}

/** Options of `list`. */
export interface ListOptions {
  /** Told of each committed checkpoint that is left out because its manifest cannot be read. */
  onDamaged?(name: string, problem: string): void;
}

/** Saves and loads checkpoints of one run in one store. */
export interface Checkpointer {
  /**
   * Collective. Commits a new checkpoint named after `step`.
   *
   * @throws CheckpointError on every rank when it exists already or cannot be written. Nothing is committed then, earlier
   *   checkpoints stay as they are, and the state may be saved again.
   */
  save(state: ShardedState, step: number, collective: Collective): Promise<CheckpointInfo>;
  /**
   * Collective. Resolves as soon as the state is copied to host memory that the checkpointer keeps; it is written and
   * committed in the background, over a group of its own. Every rank's outcome is the same.
   *
   * @throws CheckpointError on every rank when the state is not sound, or when an earlier save in the background failed and
   *   nobody was told: once, and this state is not saved then.
   */
  saveAsync(
    state: ShardedState,
    step: number,
    collective: Collective,
    options?: AsyncSaveOptions,
  ): Promise<PendingSave>;
  /** Collective. Fills `state`'s tensors from checkpoint `name` (`"latest"`: the newest whose manifest can be read). */
  load(
    state: Pick<ShardedState, "tensors">,
    name: string,
    collective: Collective,
    options?: LoadOptions,
  ): Promise<LoadedCheckpoint>;
  /** Committed checkpoints, oldest first. */
  list(options?: ListOptions): Promise<readonly CheckpointInfo[]>;
  delete(name: string): Promise<void>;
  /** Reads every byte of a checkpoint and reports what is damaged; empty when whole. */
  verify(name: string): Promise<readonly CheckpointFault[]>;
  /** Waits for what goes on in the background, whose failure is told by `PendingSave` alone, and frees its memory. */
  close(): Promise<void>;
}

/** A file being written to a store. */
export interface StoreWriter {
  /** Appends; the bytes may be reused when it resolves. */
  write(bytes: Uint8Array): Promise<void>;
  /** Makes the file durable. */
  close(): Promise<void>;
  /** Drops it. */
  abort(): Promise<void>;
  /** SHA-256 of what was stored, in lower-case hexadecimal, after `close`; of transactions that have `digests` only. */
  readonly sha256?: string | undefined;
}

/** A committed file that is being read. */
export interface StoreReader {
  /** Fills `target` with the bytes from `begin` on. Several calls may be under way. @throws CheckpointError when the file has not as many. */
  readInto(target: Uint8Array, begin: number): Promise<void>;
  /** Tells that the calls of `readInto` to come take bytes `[begin, end)`, in order and without a gap: they may be fetched as one. */
  expect?(begin: number, end: number): void;
  close(): Promise<void>;
}

/** A folder of files that is committed as one. Named by the store; `commit` by one rank makes it visible. */
export interface StoreTransaction {
  /** Token by which other ranks join the same transaction. */
  readonly id: string;
  /** Set when the store takes the SHA-256 of all that it stores, and its writers tell: nobody needs to before it then. */
  readonly digests?: boolean;
  /** Begins a file. `bytes` is its length where that is known: a store may set room aside, or refuse at once. */
  create(file: string, bytes?: number): Promise<StoreWriter>;
  read(file: string): Promise<Uint8Array>;
  /** Deletes a file of this transaction, before it is committed. */
  remove(file: string): Promise<void>;
  /**
   * Makes a file of a committed folder a file of this transaction too, without storing its bytes again. Optional: absent
   * where a store has no way to share. @throws CheckpointError when there is no such file, or it cannot be shared.
   */
  link?(file: string, from: { readonly name: string; readonly file: string }): Promise<void>;
  /** Set when `link` itself reads the bytes again and refuses those that have rotted; nobody needs to before it then. */
  readonly linkVerifies?: boolean;
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
  /** Opens a committed file for many reads. Optional: absent, `read` serves them. */
  open?(name: string, file: string): Promise<StoreReader>;
  delete(name: string): Promise<void>;
}

/** Named tensors in a file (or several), readable by box. */
export interface TensorReader {
  readonly names: readonly string[];
  has(name: string): boolean;
  info(name: string): { readonly dtype: StoredDType; readonly shape: readonly number[] };
  /** A box of a tensor, row-major; the whole tensor without `box`. */
  read(name: string, box?: Box): Promise<StoredArray>;
  close(): Promise<void>;
}

/** A tensor to be written to a file. */
export interface NamedTensor {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  /** The whole tensor, row-major; called when its turn comes. */
  read(): Promise<StoredArray>;
  /** A box of it, row-major. A writer that has it takes a large tensor in parts, and never calls `read` for it. */
  readBox?(box: Box): Promise<StoredArray>;
}

/** How tensors are written. */
export interface TensorWriteOptions {
  /** Largest file in bytes; what takes more is cut into several files, a whole tensor at a time. Default: no limit. */
  readonly maxShardBytes?: number | undefined;
}

/** A tensor file format, by extension. */
export interface TensorFormat {
  readonly name: string;
  /** Opens a file, or a folder that the format knows how to read. */
  open(path: string): Promise<TensorReader>;
  /**
   * Writes to a temporary file, makes it durable and renames it to `path`. With `maxShardBytes`, and more than that to
   * write, the files lie beside `path` and an index `<path>.index.json` tells what is where, as Hugging Face lays it out.
   */
  write(
    path: string,
    tensors: readonly NamedTensor[],
    metadata: Readonly<Record<string, string>>,
    options?: TensorWriteOptions,
  ): Promise<void>;
}

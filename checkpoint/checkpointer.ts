/**
 * The native checkpointer: sharded safetensors files and a manifest, in any store.
 *
 * @module
 */
import type {
  AsyncSaveOptions,
  Checkpointer,
  CheckpointerOptions,
  CheckpointInfo,
  CheckpointStore,
  ListOptions,
  LoadedCheckpoint,
  LoadOptions,
  PendingSave,
  ShardedState,
} from "../core/contracts/checkpointer.ts";
import type { Collective } from "../core/contracts/collective.ts";
import { type BackgroundSaves, backgroundSaves } from "./background.ts";
import { loadCheckpoint } from "./load.ts";
import { readableCheckpoints } from "./open-manifest.ts";
import { checkRetention, deleteOld } from "./retention.ts";
import { prepareSave, type SavePlace, writeSave } from "./save.ts";
import { verifyCheckpoint } from "./verify.ts";

/** Options of the native checkpointer. */
export interface NativeCheckpointerOptions extends CheckpointerOptions {
  /** The clock that dates checkpoints, in milliseconds since the epoch. */
  readonly now?: () => number;
}

/**
 * Saves and loads checkpoints in `store`.
 *
 * @throws ConfigError for a retention that keeps nothing.
 *
 * @example
 * const checkpointer = nativeCheckpointer(directoryStore("runs/a"), { keepLast: 3 });
 * await checkpointer.save(state, 10, collective);
 * const pending = await checkpointer.saveAsync(state, 20, collective);
 * await pending.wait();
 * await checkpointer.load(state, "latest", collective);
 */
export function nativeCheckpointer(
  store: CheckpointStore,
  options: NativeCheckpointerOptions = {},
): Checkpointer {
  const { now = Date.now } = options;
  checkRetention(options);
  /** By rank: ranks of one event loop may share a checkpointer. */
  const background = new Map<Collective, BackgroundSaves>();
  const place = (): SavePlace => ({
    store,
    createdAt: now(),
    afterCommit: async () => {
      await deleteOld(store, options).catch((error: unknown) => options.onRetentionFailure?.(error));
    },
  });
  return Object.freeze<Checkpointer>({
    async save(state: ShardedState, step: number, collective: Collective): Promise<CheckpointInfo> {
      const settled = async () => await background.get(collective)?.settle();
      return await writeSave(await prepareSave(state, step, collective, settled), place(), collective);
    },
    async saveAsync(
      state: ShardedState,
      step: number,
      collective: Collective,
      asyncOptions: AsyncSaveOptions = {},
    ): Promise<PendingSave> {
      let saves = background.get(collective);
      if (saves === undefined) {
        saves = backgroundSaves(collective);
        background.set(collective, saves);
      }
      return await saves.start(state, step, place(), asyncOptions);
    },
    load(
      state: Pick<ShardedState, "tensors">,
      name: string,
      collective: Collective,
      loadOptions?: LoadOptions,
    ): Promise<LoadedCheckpoint> {
      return loadCheckpoint(store, state, name, collective, loadOptions);
    },
    list: (listOptions?: ListOptions) =>
      readableCheckpoints(store, (name, problem) => listOptions?.onDamaged?.(name, problem)),
    delete: (name: string) => store.delete(name),
    verify: (name: string) => verifyCheckpoint(store, name),
    async close(): Promise<void> {
      for (const saves of background.values()) await saves.close();
      background.clear();
    },
  });
}

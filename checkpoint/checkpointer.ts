/**
 * The native checkpointer: sharded safetensors files and a manifest, in any store.
 *
 * @module
 */
import type {
  Checkpointer,
  CheckpointInfo,
  CheckpointStore,
  LoadedCheckpoint,
  ShardedState,
} from "../core/contracts/checkpointer.ts";
import type { Collective } from "../core/contracts/collective.ts";
import { loadCheckpoint, openManifest } from "./load.ts";
import { saveCheckpoint } from "./save.ts";
import { verifyCheckpoint } from "./verify.ts";

/** Options of the native checkpointer. */
export interface NativeCheckpointerOptions {
  /** The clock that dates checkpoints, in milliseconds since the epoch. */
  readonly now?: () => number;
}

/**
 * Saves and loads checkpoints in `store`.
 *
 * @example
 * const checkpointer = nativeCheckpointer(directoryStore("runs/a"));
 * await checkpointer.save(state, 10, collective);
 * await checkpointer.load(state, "latest", collective);
 */
export function nativeCheckpointer(
  store: CheckpointStore,
  options: NativeCheckpointerOptions = {},
): Checkpointer {
  const { now = Date.now } = options;
  return Object.freeze<Checkpointer>({
    save(state: ShardedState, step: number, collective: Collective): Promise<CheckpointInfo> {
      return saveCheckpoint(store, state, step, now(), collective);
    },
    load(
      state: Pick<ShardedState, "tensors">,
      name: string,
      collective: Collective,
    ): Promise<LoadedCheckpoint> {
      return loadCheckpoint(store, state, name, collective);
    },
    async list(): Promise<readonly CheckpointInfo[]> {
      const infos: CheckpointInfo[] = [];
      for (const name of await store.list()) infos.push((await openManifest(store, name)).info);
      return infos.sort((a, b) => a.step - b.step || a.createdAt - b.createdAt);
    },
    delete: (name: string) => store.delete(name),
    verify: (name: string) => verifyCheckpoint(store, name),
  });
}

/**
 * Native checkpoints, in any registered store, as a source.
 *
 * @module
 */
import type { CheckpointFault, CheckpointStore } from "../../core/contracts/checkpointer.ts";
import { hostArray } from "../../core/contracts/dtype.ts";
import { CheckpointError } from "../../core/contracts/errors.ts";
import type { Registry } from "../../core/contracts/plugin.ts";
import { storeAbove, storeAt } from "../../core/runtime/checkpoint-place.ts";
import { blockReader } from "../block-reader.ts";
import { volume } from "../boxes.ts";
import { roomFor } from "../formats/byte-source.ts";
import { newestCheckpoint, openManifest } from "../open-manifest.ts";
import { planLoad } from "../plan.ts";
import { batches, placeBatch } from "../transfer.ts";
import { verifyCheckpoint } from "../verify.ts";
import type { CheckpointSource, SourceTensor } from "./source.ts";

/** A checkpoint in a store. */
export interface NativePlace {
  readonly store: CheckpointStore;
  readonly name: string;
  readonly location: string;
  verify(): Promise<readonly CheckpointFault[]>;
}

/**
 * The checkpoint that a location means: the newest one there, or the one whose own location it is. Of a run whose newest
 * checkpoint is damaged it is that one, never silently an older one.
 */
export async function findNative(registry: Registry, location: string): Promise<NativePlace | undefined> {
  const store = storeAt(registry, location);
  if (store !== undefined) {
    const damaged: string[] = [];
    const newest = await newestCheckpoint(store, (name) => void damaged.push(name));
    const name = damaged[0] ?? newest?.info.name;
    if (name !== undefined) return placeIn(store, name);
  }
  const above = storeAbove(registry, location);
  if (above === undefined || !(await above.store.list()).includes(above.name)) return undefined;
  return placeIn(above.store, above.name);
}

function placeIn(store: CheckpointStore, name: string): NativePlace {
  // A store may have been opened by the location of one of its checkpoints.
  const location = store.location.endsWith(`/${name}`) ? store.location : `${store.location}/${name}`;
  return { store, name, location, verify: () => verifyCheckpoint(store, name) };
}

/** Opens a checkpoint. @throws CheckpointError when its manifest is not sound. */
export async function openNativeSource({ store, name, location }: NativePlace): Promise<CheckpointSource> {
  const { manifest } = await openManifest(store, name);
  const tensors = new Map(manifest.tensors.map((tensor) => [tensor.name, tensor]));
  const files = manifest.files.map((file) => ({ name: file.name, bytes: file.length }));
  const indices = new Map(files.map((file, i) => [file.name, i]));
  const reader = blockReader(store, name, manifest.files);
  /** The end of the read that was asked for last. */
  let last: Promise<void> = Promise.resolve();
  return {
    format: "native",
    location,
    step: manifest.step,
    worldSize: manifest.worldSize,
    files,
    tensors: manifest.tensors.map(
      ({ name, dtype, shape, chunks }): SourceTensor => ({
        name,
        dtype,
        shape,
        chunks: chunks.map(({ offsets, sizes, file }) => ({ offsets, sizes, file: indices.get(file)! })),
      }),
    ),
    values: Object.entries(manifest.values).map(([name, value]) => ({ name, value })),
    rankValues: manifest.rankValues,
    leftOut: [],
    nested: true,
    async read(name, box) {
      const tensor = tensors.get(name);
      if (tensor === undefined)
        throw new CheckpointError(`read of ${location}: no tensor ${JSON.stringify(name)}`);
      const [plan] = planLoad([tensor], [{ ...tensor, pieces: [box] }]);
      const bytes = roomFor(name, plan!.bytes);
      // What the reader gives is good until it is asked again, and ranks that convert ask at the same time.
      const turn = last.then(async () => {
        for (const transfer of plan!.transfers) {
          for (const batch of batches(transfer)) {
            placeBatch(batch, await reader.read(transfer.file, batch.begin, batch.end), bytes);
          }
        }
      });
      last = turn.catch(() => {});
      await turn;
      return hostArray(tensor.dtype, bytes.buffer, 0, volume(box.sizes));
    },
    close: () => reader.close(),
  };
}

/**
 * One run of the service: its committed checkpoints, which lie as any directory store has them, and beside them, hidden,
 * the service's own: blobs, saves in progress, what is noted of checkpoints.
 *
 *     DIR/RUN/CHECKPOINT/                 manifest.msgpack, rank-00000.safetensors ...
 *     DIR/.service/RUN/blobs/             bytes by digest; checkpoints hold hard links to them
 *     DIR/.service/RUN/saves/ID/          journal.jsonl and the bytes of unfinished uploads
 *     DIR/.service/RUN/notes/NAME.json    pins and labels
 *
 * @module
 */
import { lstat, mkdir, readdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { CheckpointStore } from "../../core/contracts/checkpointer.ts";
import { directoryStore } from "../stores/directory.ts";
import { exists, syncDirectory } from "../stores/directory-files.ts";
import { nodeFileSystem } from "../stores/file-system.ts";
import { sweepLeftovers } from "../stores/leftovers.ts";
import { type Blobs, openBlobs } from "./blobs.ts";
import { createEvents, type Events } from "./events.ts";
import { createNotes, type Notes } from "./notes.ts";
import { createQueue, type Queue } from "./queue.ts";
import { reopenSave, type Save } from "./save.ts";

/** One run. */
export interface Run {
  readonly name: string;
  /** Folder of the committed checkpoints. */
  readonly root: string;
  /** Folder of the saves. */
  readonly savesFolder: string;
  readonly store: CheckpointStore;
  readonly blobs: Blobs;
  readonly saves: Map<string, Save>;
  readonly notes: Notes;
  readonly events: Events;
  /** For what changes the run's list of saves or checkpoints. */
  readonly queue: Queue;
}

/** Opens a run, with all that an earlier process left of it; folders that are not there yet are made. */
export async function openRun(directory: string, name: string, now: () => number): Promise<Run> {
  const own = join(directory, ".service", name);
  const folders = { blobs: join(own, "blobs"), saves: join(own, "saves"), notes: join(own, "notes") };
  for (const folder of Object.values(folders)) await mkdir(folder, { recursive: true });
  const root = join(directory, name);
  // What a deletion left that was cut short.
  if (await exists(nodeFileSystem, root)) await sweepLeftovers(nodeFileSystem, root);
  const run: Run = {
    name,
    root,
    savesFolder: folders.saves,
    store: directoryStore(root),
    blobs: openBlobs(folders.blobs, now),
    saves: new Map(),
    notes: createNotes(folders.notes),
    events: createEvents(),
    queue: createQueue(),
  };
  for (const id of await readdir(folders.saves)) {
    const save = await reopenSave(join(folders.saves, id));
    if (save === undefined) await rm(join(folders.saves, id), { recursive: true, force: true });
    else {
      await settle(run, save, now());
      run.saves.set(save.begun.id, save);
    }
  }
  return run;
}

/** Finishes a commit that a killed service had begun: it took place when its very folder has the checkpoint's name. */
async function settle(run: Run, save: Save, now: number): Promise<void> {
  if (save.state !== "open" || save.committing === undefined) return;
  const there = await lstat(join(run.root, save.begun.name), { bigint: true }).catch(() => undefined);
  if (there === undefined || String(there.ino) !== save.committing.inode) return;
  await syncDirectory(run.root);
  await save.record({ type: "committed", sha256: save.committing.sha256, at: now });
  await save.clear();
}

/** Makes the folder of the committed checkpoints, durably. */
export async function makeRoot(run: Run): Promise<void> {
  if ((await mkdir(run.root, { recursive: true })) !== undefined) await syncDirectory(dirname(run.root));
}

/** Ends saves whose time is up, forgets those that ended long ago, and frees bytes that nothing needs. */
export async function sweepRun(
  run: Run,
  now: number,
  bounds: { readonly saveSeconds: number; readonly graceSeconds: number },
): Promise<void> {
  for (const save of run.saves.values()) {
    await save.queue(async () => {
      if (save.state === "open" && save.begun.expiresAt <= now) {
        save.state = "expired";
        save.endedAt = now;
        await save.clear();
        run.events.publish("save-expired", { save: save.begun.id, name: save.begun.name });
      } else if (save.endedAt !== undefined && now - save.endedAt > bounds.saveSeconds * 1000) {
        run.saves.delete(save.begun.id);
        await rm(save.folder, { recursive: true, force: true });
      }
    });
  }
  const needed = new Set<string>();
  for (const save of run.saves.values()) {
    if (save.state !== "open") continue;
    for (const { sha256 } of [...save.files.values(), ...save.finished.values()]) needed.add(sha256);
  }
  await run.blobs.sweep((sha256) => needed.has(sha256), now, bounds.graceSeconds);
}

/**
 * A save in progress: the files that a checkpoint is made of, by name, while they arrive. It is open, then committed,
 * aborted or expired, and never opens again. Every change is in its journal before it is told.
 *
 * @module
 */
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { appendJournal, type BeginEntry, type JournalEntry, reopenJournal } from "./journal.ts";
import { Problem } from "./problem.ts";
import { createQueue, type Queue } from "./queue.ts";
import { reopenUpload, Upload, type UploadSpec } from "./upload.ts";

/** Where a save stands. */
export type SaveState = "open" | "committed" | "aborted" | "expired";

/** A file of a save. */
export interface SaveFile {
  readonly sha256: string;
  readonly length: number;
}

/** One save. Changes go through `queue`, so that they happen one after another. */
export class Save {
  readonly begun: BeginEntry;
  /** The save's own folder. */
  readonly folder: string;
  readonly files: Map<string, SaveFile> = new Map();
  readonly uploads: Map<string, Upload> = new Map();
  /** What complete uploads became, by their ids: a client whose answer was lost asks again. */
  readonly finished: Map<string, SaveFile> = new Map();
  /** Every upload that was begun with an idempotency key, by that key, whatever became of it. */
  readonly keyed: Map<string, UploadSpec> = new Map();
  /** How many uploads were begun. */
  begunUploads = 0;
  /** Names of files that were taken out: a client whose answer was lost asks for it again. */
  readonly removed: Set<string> = new Set();
  readonly queue: Queue = createQueue();
  state: SaveState = "open";
  /** Counts changes; the save's entity tag. */
  revision = 0;
  /** SHA-256 of the manifest, once committed. */
  manifest: string | undefined;
  endedAt: number | undefined;
  /** Inode of the folder that was about to become the checkpoint when the journal ended. */
  committing: { readonly inode: string; readonly sha256: string } | undefined;

  constructor(begun: BeginEntry, folder: string) {
    this.begun = begun;
    this.folder = folder;
  }

  /** Records a change and makes it. */
  async record(entry: JournalEntry): Promise<void> {
    await appendJournal(journalOf(this.folder), entry);
    this.apply(entry);
  }

  /** @throws Problem unless the save is open. */
  checkOpen(): void {
    if (this.state === "open") return;
    if (this.state === "expired") throw new Problem("expired", `the save of ${this.begun.name} has expired`);
    throw new Problem("not-open", `the save of ${this.begun.name} is ${this.state}`, {
      fields: { state: this.state },
    });
  }

  /** Whether a file has this name or is being uploaded under it. */
  isTaken(file: string): boolean {
    return this.files.has(file) || [...this.uploads.values()].some(({ spec }) => spec.file === file);
  }

  uploadPath(id: string): string {
    return join(this.folder, `upload-${id}`);
  }

  /** Begins an upload. */
  async addUpload(spec: UploadSpec): Promise<Upload> {
    const path = this.uploadPath(spec.id);
    await writeFile(path, new Uint8Array(0), { flag: "wx" });
    await this.record({ type: "upload", ...spec });
    const upload = new Upload(spec, path);
    this.uploads.set(spec.id, upload);
    return upload;
  }

  /** Drops an upload and its bytes. */
  async dropUpload(upload: Upload): Promise<void> {
    await this.record({ type: "drop", id: upload.spec.id });
    upload.drop();
    await rm(upload.path, { force: true });
  }

  /** Ends the save's use of the disk; its journal stays, to answer repeated requests. */
  async clear(): Promise<void> {
    for (const upload of this.uploads.values()) {
      upload.drop();
      await rm(upload.path, { force: true });
    }
    this.uploads.clear();
    await rm(join(this.folder, "commit"), { recursive: true, force: true });
  }

  /** Makes a recorded change in memory. Uploads are put in place by who knows their bytes. */
  apply(entry: JournalEntry): void {
    this.revision++;
    switch (entry.type) {
      case "begin":
        break;
      case "upload": {
        const { type: _, ...spec } = entry;
        this.begunUploads++;
        if (spec.key !== undefined) this.keyed.set(spec.key, spec);
        break;
      }
      case "drop":
        this.uploads.delete(entry.id);
        break;
      case "file": {
        const stored = { sha256: entry.sha256, length: entry.length };
        if (entry.file !== undefined) {
          this.files.set(entry.file, stored);
          this.removed.delete(entry.file);
        }
        if (entry.upload !== undefined) {
          this.uploads.delete(entry.upload);
          this.finished.set(entry.upload, stored);
        }
        break;
      }
      case "remove":
        this.files.delete(entry.file);
        this.removed.add(entry.file);
        break;
      case "committing":
        this.committing = { inode: entry.inode, sha256: entry.sha256 };
        break;
      case "committed":
        this.state = "committed";
        this.manifest = entry.sha256;
        this.endedAt = entry.at;
        break;
      case "aborted":
        this.state = "aborted";
        this.endedAt = entry.at;
        break;
    }
  }
}

/** Begins a save in `parent`. */
export async function createSave(parent: string, begun: BeginEntry): Promise<Save> {
  const folder = join(parent, begun.id);
  await mkdir(folder);
  const save = new Save(begun, folder);
  await save.record(begun);
  return save;
}

/** The save that an earlier process left in a folder; `undefined` when it had not begun. */
export async function reopenSave(folder: string): Promise<Save | undefined> {
  const entries = await reopenJournal(journalOf(folder)).catch(() => []);
  const [begun] = entries;
  if (begun?.type !== "begin") return undefined;
  const save = new Save(begun, folder);
  const specs = new Map<string, UploadSpec>();
  for (const entry of entries) {
    save.apply(entry);
    if (entry.type === "upload") {
      const { type: _, ...spec } = entry;
      specs.set(entry.id, spec);
    }
    if (entry.type === "drop") specs.delete(entry.id);
    if (entry.type === "file" && entry.upload !== undefined) specs.delete(entry.upload);
  }
  if (save.state !== "open") return save;
  for (const spec of specs.values()) {
    // One whose bytes are gone was dropped in the middle of a crash.
    const upload = await reopenUpload(spec, save.uploadPath(spec.id)).catch(() => undefined);
    if (upload !== undefined) save.uploads.set(spec.id, upload);
  }
  return save;
}

function journalOf(folder: string): string {
  return join(folder, "journal.jsonl");
}
